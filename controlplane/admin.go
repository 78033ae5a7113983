package controlplane

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/postgres"
	"github.com/outfeed/outfeed/internal/durable"
	"github.com/outfeed/outfeed/internal/secret"
)

// Migrate brings the schema of a PostgreSQL of the operator's own up to date.
func Migrate(ctx context.Context, c Config) error {
	if c.MigrateURL.Empty() {
		return errors.New("set OUTFEED_MIGRATE_DATABASE_URL to the role that owns the schema; a private PostgreSQL is migrated by serve")
	}
	if err := postgres.Migrate(ctx, c.MigrateURL, ""); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// adminToken reads the operators' token, and makes one at the first start.
func (c *ControlPlane) adminToken() (secret.String, error) {
	path := c.config.AdminTokenFile
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		// Of processes that start at once the first makes it.
		if err := durable.Create(path, []byte(rand.Text()+rand.Text()+"\n"), 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return secret.String{}, fmt.Errorf("make the operators' token: %w", err)
		}
	}
	if err := c.config.checkAdminToken(); err != nil {
		return secret.String{}, fmt.Errorf("OUTFEED_ADMIN_TOKEN_FILE: %w", err)
	}
	token, err := auth.ReadAdminToken(path)
	if err != nil {
		return secret.String{}, fmt.Errorf("OUTFEED_ADMIN_TOKEN_FILE: %w", err)
	}
	return token, nil
}

// refusal is what the control plane says against a request, with what is wrong with each field.
func refusal(p api.Problem) error {
	lines := []string{p.Detail}
	for _, e := range p.Errors {
		field := strings.TrimPrefix(e.Location, "body.")
		switch field {
		case "name":
			field = "the tenant's name"
		case "owner_email":
			field = "--owner"
		}
		lines = append(lines, "  "+field+": "+e.Message)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// CreatedTenant is a new tenant with its first API key.
type CreatedTenant struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	APIKey string `json:"api_key"`
}

// CreateTenant asks the control plane that runs on this machine to make a tenant.
func CreateTenant(ctx context.Context, c Config, name, owner string) (CreatedTenant, error) {
	if strings.TrimSpace(name) == "" {
		return CreatedTenant{}, errors.New("the tenant's name is empty; give one, like \"My company\"")
	}
	token, err := auth.ReadAdminToken(c.AdminTokenFile)
	if err != nil {
		return CreatedTenant{}, fmt.Errorf("read the operators' token (is the control plane running, with the same OUTFEED_DATA_DIR?): %w", err)
	}
	body, err := json.Marshal(api.TenantCreate{Name: name, OwnerEmail: owner})
	if err != nil {
		return CreatedTenant{}, fmt.Errorf("ask for a tenant: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.AdminListen+"/admin/tenants", bytes.NewReader(body))
	if err != nil {
		return CreatedTenant{}, fmt.Errorf("ask for a tenant: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return CreatedTenant{}, fmt.Errorf("no control plane answers on %s (OUTFEED_ADMIN_LISTEN): %w", c.AdminListen, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it has been read
	d := json.NewDecoder(resp.Body)
	if resp.StatusCode/100 != 2 {
		var p api.Problem
		if err := d.Decode(&p); err != nil || p.Detail == "" {
			return CreatedTenant{}, fmt.Errorf("the control plane says %s", resp.Status)
		}
		return CreatedTenant{}, refusal(p)
	}
	var made api.TenantCreated
	if err := d.Decode(&made); err != nil {
		return CreatedTenant{}, fmt.Errorf("read the control plane's answer: %w", err)
	}
	return CreatedTenant{ID: made.Tenant.ID, Name: made.Tenant.Name, APIKey: made.Key}, nil
}
