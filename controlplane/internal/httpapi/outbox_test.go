package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestRefusedInsights(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.AgentList = []fleet.Agent{agent()}
	record, err := proto.Marshal(&wire.InsightRecord{FlowId: string(apitest.ID(20)), FlowVersion: 2, Name: "hot", ValuesJson: []byte(strings.Repeat("x", 100))})
	if err != nil {
		t.Fatal(err)
	}
	f.RefusedList = []fleet.RefusedInsight{
		{Agent: apitest.ID(10), Received: apitest.Clock(), Seq: 9, Reason: "its values are no JSON object", Record: record[:len(record)-7]},
		{Agent: apitest.ID(11), Received: apitest.Clock(), Seq: 3, Reason: "it has no name", Record: []byte{0xff}},
		{Agent: apitest.ID(10), Received: apitest.Clock(), Seq: 8, Reason: "it has no name"},
	}
	c := serve(t, f, apitest.Options{})
	page := get[api.RefusedInsightPage](c, 200, "GET", "/api/v1/insights/refused?limit=2", "")
	want := api.RefusedInsight{
		AgentID: string(apitest.ID(10)), Seq: 9, ReceivedAt: apitest.Clock(), Reason: "its values are no JSON object", Name: "hot",
		FlowID: string(apitest.ID(20)), Version: 2, Record: record[:len(record)-7],
	}
	if diff := cmp.Diff(want, page.Items[0]); diff != "" || len(page.Items) != 2 || page.Next == "" || page.Items[1].Name != "" {
		t.Errorf("the first page is %+v\n%s", page, diff)
	}
	page = get[api.RefusedInsightPage](c, 200, "GET", "/api/v1/insights/refused?limit=2&after="+page.Next, "")
	if len(page.Items) != 1 || page.Next != "" {
		t.Errorf("the second page is %+v", page)
	}
	page = get[api.RefusedInsightPage](c, 200, "GET", "/api/v1/insights/refused?agent=hall-3", "")
	if len(page.Items) != 2 {
		t.Errorf("those of one agent are %+v", page)
	}
	problemOf(c, 404, "GET", "/api/v1/insights/refused?agent=nobody", "")
	problemOf(c, 422, "GET", "/api/v1/insights/refused?limit=201", "")
}

func TestMissingInsights(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	f.AgentList = []fleet.Agent{agent()}
	f.MissingList = []fleet.MissingInsights{
		{Agent: apitest.ID(10), FirstAt: apitest.Clock(), LastAt: apitest.Clock().Add(time.Minute), First: 90, Last: 99, Reason: "expired_age"},
		{Agent: apitest.ID(11), First: 4, Last: 4, Reason: "damaged"},
		{Agent: apitest.ID(10), First: 7, Last: 8, Reason: "damaged"},
	}
	c := serve(t, f, apitest.Options{})
	page := get[api.MissingInsightsPage](c, 200, "GET", "/api/v1/insights/missing?limit=2", "")
	want := api.MissingInsights{
		AgentID: string(apitest.ID(10)), FirstSeq: 90, LastSeq: 99, Insights: 10, Reason: "expired_age",
		FirstAt: apitest.Clock(), LastAt: apitest.Clock().Add(time.Minute),
	}
	if diff := cmp.Diff(want, page.Items[0]); diff != "" || len(page.Items) != 2 || page.Next == "" {
		t.Errorf("the first page is %+v\n%s", page, diff)
	}
	page = get[api.MissingInsightsPage](c, 200, "GET", "/api/v1/insights/missing?limit=2&after="+page.Next, "")
	if len(page.Items) != 1 || page.Next != "" {
		t.Errorf("the second page is %+v", page)
	}
	page = get[api.MissingInsightsPage](c, 200, "GET", "/api/v1/insights/missing?agent=hall-3", "")
	if len(page.Items) != 2 {
		t.Errorf("those of one agent are %+v", page)
	}
	problemOf(c, 404, "GET", "/api/v1/insights/missing?agent=nobody", "")
	problemOf(c, 422, "GET", "/api/v1/insights/missing?limit=201", "")
}
