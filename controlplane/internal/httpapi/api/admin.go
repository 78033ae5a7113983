package api

import "time"

// TenantCreate asks for a tenant.
type TenantCreate struct {
	Name       string `json:"name" minLength:"1" maxLength:"100"`
	OwnerEmail string `json:"owner_email" minLength:"3" maxLength:"254" format:"email"`
}

// Tenant is a customer organization.
type Tenant struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// TenantCreated is a new tenant and its first API key, which is shown this once.
type TenantCreated struct {
	Tenant Tenant `json:"tenant"`
	Key    string `json:"key" doc:"The text of the owner's API key. It is shown this once."`
}
