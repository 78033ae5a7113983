package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/terminal"
)

// missedPages bounds how much is read again after the stream was cut.
const missedPages = 20

func (a *app) insightTail() *cobra.Command {
	var s selection
	c := &cobra.Command{
		Use: "tail [NAME]", Short: "Print insights as they arrive, until Ctrl-C",
		Long: `Prints insights as they arrive. When the stream is cut, it connects again and prints what arrived in between. With
--json, each insight is one line of JSON.`,
		Example: "  outfeed insight tail press_health --key machine=M1\n  outfeed insight tail --json | jq .values",
		Args:    cobra.MaximumNArgs(1),
	}
	s.flags(c)
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
		q, err := s.query(args)
		if err != nil {
			return err
		}
		keys, err := splitPairs("key", s.keys)
		if err != nil {
			return err
		}
		t := &tail{app: a, remote: remote, query: q, keys: keys, name: q.Get("name"), last: map[string]int64{}}
		if err := t.resolve(ctx, s); err != nil {
			return err
		}
		t.show = func(i api.Insight) error { return a.print("%s", insightLine(i)) }
		if *asJSON {
			t.show = func(i api.Insight) error { return a.printLine(i) }
		}
		return t.run(ctx)
	})
	return c
}

// tail follows insights over any number of connections.
type tail struct {
	*app
	remote            *client.Client
	query             url.Values
	name, flow, agent string
	keys              map[string]string
	show              func(api.Insight) error

	// last is the greatest sequence seen of each agent, shown or not.
	last map[string]int64
	// cut is when the stream was lost; zero before the first connection.
	cut time.Time
}

// resolve finds the ids of the chosen flow and agent, and so says at once when there is no such thing.
func (t *tail) resolve(ctx context.Context, s selection) error {
	if s.flow != "" {
		flow, err := client.Get[api.Flow](ctx, t.remote, "/flows/"+url.PathEscape(s.flow), nil)
		if err != nil {
			return err
		}
		t.flow = flow.ID
	}
	if s.agent != "" {
		agent, err := client.Get[api.Agent](ctx, t.remote, "/agents/"+url.PathEscape(s.agent), nil)
		if err != nil {
			return err
		}
		t.agent = agent.ID
	}
	return nil
}

// run follows until ctx ends, which is how it is meant to end.
func (t *tail) run(ctx context.Context) error {
	wait := backoff.Backoff{Max: 30 * time.Second}
	for {
		err := t.follow(ctx, wait.Reset)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // Ctrl-C is how it ends, and the error only says so
		}
		if _, output := errors.AsType[*outputError](err); output || isFinal(err) {
			return err
		}
		if t.cut.IsZero() {
			return err // it never worked: say so instead of trying in silence
		}
		t.say("The stream was cut (%s); connecting again.", terminal.Text(err.Error()))
		if wait.Wait(ctx) != nil {
			return nil //nolint:nilerr // Ctrl-C while waiting
		}
	}
}

// isFinal says whether trying again is of no use.
func isFinal(err error) bool {
	problem, ok := errors.AsType[*client.ProblemError](err)
	return ok && problem.Status < http.StatusInternalServerError && problem.Status != http.StatusTooManyRequests
}

// outputError says that nobody takes the output any more.
type outputError struct{ error }

func (e *outputError) Unwrap() error { return e.error }

// follow prints what one connection brings, and first what was missed since the last.
func (t *tail) follow(ctx context.Context, connected func()) error {
	stream, err := t.remote.Follow(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	if !t.cut.IsZero() {
		if err := t.catchUp(ctx); err != nil {
			return err
		}
	}
	t.cut = t.now() // from here on, whatever ends is a cut
	connected()
	defer func() { t.cut = t.now() }()
	for {
		event, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("the control plane ended it")
		}
		if err != nil {
			return err
		}
		if event.Name != api.EventInsights {
			continue
		}
		var data api.InsightsEvent
		if err := json.Unmarshal(event.Data, &data); err != nil {
			return fmt.Errorf("an event could not be read: %w", err)
		}
		for _, i := range data.Items {
			if err := t.take(i); err != nil {
				return err
			}
		}
	}
}

// catchUp reads the newest insights until it meets a page with nothing new.
func (t *tail) catchUp(ctx context.Context) error {
	q := url.Values{"limit": {"1000"}}
	maps.Copy(q, t.query)
	var missed []api.Insight
	for range missedPages {
		page, err := client.Get[api.InsightPage](ctx, t.remote, "/insights", q)
		if err != nil {
			return err
		}
		before := len(missed)
		for _, i := range page.Items {
			if last, known := t.last[i.AgentID]; i.Seq > last && (known || i.ReceivedAt.After(t.cut)) {
				missed = append(missed, i)
			}
		}
		if page.Next == "" || len(missed) == before {
			break
		}
		q.Set("after", page.Next)
	}
	slices.SortFunc(missed, func(x, y api.Insight) int {
		return cmp.Or(strings.Compare(x.AgentID, y.AgentID), cmp.Compare(x.Seq, y.Seq))
	})
	for _, i := range missed {
		if err := t.take(i); err != nil {
			return err
		}
	}
	return nil
}

// take prints an insight that is chosen and new.
func (t *tail) take(i api.Insight) error {
	if i.Seq <= t.last[i.AgentID] {
		return nil
	}
	t.last[i.AgentID] = i.Seq
	if !t.wants(i) {
		return nil
	}
	if err := t.show(i); err != nil {
		return &outputError{err}
	}
	return nil
}

func (t *tail) wants(i api.Insight) bool {
	if (t.name != "" && i.Name != t.name) || (t.flow != "" && i.FlowID != t.flow) || (t.agent != "" && i.AgentID != t.agent) {
		return false
	}
	if len(t.keys) == 0 {
		return true
	}
	decoder := json.NewDecoder(bytes.NewReader(i.Key))
	decoder.UseNumber() // 1000000 is not 1e+06
	var key map[string]any
	if err := decoder.Decode(&key); err != nil {
		return false
	}
	for member, value := range t.keys {
		if have, ok := key[member]; !ok || fmt.Sprint(have) != value {
			return false
		}
	}
	return true
}
