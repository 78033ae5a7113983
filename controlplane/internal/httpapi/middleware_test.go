package httpapi_test

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
)

func TestPathsAndQueriesAreText(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	c := serve(t, f, apitest.Options{})
	for _, request := range []string{
		"GET /insights?agent=%00", "GET /insights?flow=%ff", "GET /insights?key.a=%00", "GET /insights?key.%00=a", "GET /insights?after=%c3",
		"GET /runs?agent=%00", "GET /runs?status=%00", "GET /runs?flow=a%zz", "GET /agents/%00", "GET /agents/%ff", "GET /flows/a%00",
		"GET /connections/%00", "POST /agents/%00/revoke", "DELETE /connections/a%00", "GET /nowhere/%00",
	} {
		method, path, _ := strings.Cut(request, " ")
		p := problemOf(c, 400, method, "/api/v1"+path, "")
		where := "path"
		if strings.Contains(path, "?") {
			where = "query"
		}
		if p.Code != "invalid" || !strings.Contains(p.Detail, "The "+where) {
			t.Errorf("%s: problem is %+v", request, p)
		}
	}
	problemOf(c, 404, "GET", "/api/v1/agents/%C3%96l%20%7F", "")
	problemOf(serveAdmin(t, f, "operator"), 400, "POST", "/admin/tenants?%00", `{"name":"Press AG","owner_email":"anna@press.example"}`)
}
