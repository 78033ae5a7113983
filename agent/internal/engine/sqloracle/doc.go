// Package sqloracle holds the engine against PostgreSQL: its tests make random tables and flows, run each flow here and as
// SQL there, and compare. It has no code of its own.
package sqloracle
