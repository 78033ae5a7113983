// Package mqtt reads messages from an MQTT broker, version 5 or 3.1.1, and publishes rows to one topic.
//
// A source only subscribes and never publishes; a sink only publishes. Packets are encoded and decoded by Eclipse Paho; the session is ours, because
// an acknowledgement must wait for the commit and must go out at once after it. A source has two goroutines per
// connection, a reader and a pinger, which end with the connection or with Close.
package mqtt

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Kind is the connector's name in a connection.
const Kind = "mqtt"

type mqttConnector struct{}

// New makes the connector.
func New() connector.Connector { return mqttConnector{} }

// The versions of the protocol.
const (
	version5   = "5"
	version311 = "3.1.1"
)

// Spec describes the options.
func (mqttConnector) Spec() flowdef.ConnectorSpec {
	return flowdef.ConnectorSpec{
		Kind:  Kind,
		Title: "MQTT broker",
		Help:  "Messages of an MQTT broker, with a persistent session that loses none while the agent is away.",
		Options: []flowdef.Option{
			{Name: "address", Type: flowdef.OptionString, Required: true, Help: "Host and port, or a URL: mqtt://host:1883, mqtts://host:8883 for TLS."},
			{Name: "version", Type: flowdef.OptionEnum, Enum: []string{version5, version311}, Default: version5, Help: "The version of MQTT that the broker speaks."},
			{Name: "username", Type: flowdef.OptionString, Help: "The user name, when the broker wants one."},
			{Name: "password", Type: flowdef.OptionSecret, Help: "The password of the user."},
			{Name: "client_id", Type: flowdef.OptionString, Help: "The client id, for a broker that expects a certain one; only one flow can use it. Left out, each read step has its own, which stays the same."},
			{Name: "ca_file", Type: flowdef.OptionString, Help: "A PEM file with the certificates to trust instead of the system's, for mqtts."},
			{Name: "keep_alive", Type: flowdef.OptionDuration, Default: "30s", Help: "How often to make sure that the connection is alive."},
			{Name: "session_expiry", Type: flowdef.OptionDuration, Default: "168h", Help: "How long the broker keeps messages for an agent that is away, with version 5; a 3.1.1 broker decides that itself."},
			{Name: "time_zone", Type: flowdef.OptionString, Default: "UTC", Help: "The IANA time zone of times that are written without one."},
		},
		WriteOptions: writeOptions(),
		ReadOptions: []flowdef.Option{
			{Name: "topic", Type: flowdef.OptionString, Required: true, Help: "The topic, with + for any one level and # for all further levels."},
			{Name: "qos", Type: flowdef.OptionInt, Max: 1, Default: "1", Help: "1: every message counts once, also when the agent or the link fails; 0: messages may be lost."},
			{Name: "format", Type: flowdef.OptionEnum, Enum: []string{"json"}, Default: "json", Help: "How a message is written: one JSON object."},
			{Name: "topic_as", Type: flowdef.OptionString, Help: "The string column of the schema that gets the message's topic."},
			{Name: "retained", Type: flowdef.OptionBool, Default: "false", Help: "Whether the messages that the broker retained from before count, once when the flow first subscribes."},
		},
		Example:     "press-plc:\n  kind: mqtt\n  address: mqtt://broker.plant.example:1883\n",
		ReadExample: "with: {topic: plant/press/+/state, format: json}\n",
	}
}

// settings is the checked options of a source.
type settings struct {
	connector.SourceSettings
	// address is host:port, host the name in the broker's certificate.
	address, host  string
	tls            bool
	caFile         string
	version        string
	username       string
	password       secret.String
	clientID       string
	keepAlive      time.Duration
	sessionExpiry  time.Duration
	loc            *time.Location
	topic          string
	qos            byte
	topicAs        string
	acceptRetained bool
}

// NewSource checks the settings.
func (c mqttConnector) NewSource(in connector.SourceSettings) (connector.Source, error) {
	spec := c.Spec()
	conn, err := connector.ParseOptions(spec.Options, in.Connection.Options, in.Connection.Secrets)
	if err != nil {
		return nil, err
	}
	with, err := connector.ParseOptions(spec.ReadOptions, in.With, nil)
	if err != nil {
		return nil, err
	}
	s := settings{
		SourceSettings: in,
		version:        conn.String("version"),
		username:       conn.String("username"),
		password:       conn.Secret("password"),
		clientID:       conn.String("client_id"),
		caFile:         conn.String("ca_file"),
		keepAlive:      conn.Duration("keep_alive"),
		sessionExpiry:  conn.Duration("session_expiry"),
		topic:          with.String("topic"),
		qos:            byte(with.Int("qos")), //nolint:gosec // the spec bounds it
		topicAs:        with.String("topic_as"),
		acceptRetained: with.Bool("retained"),
	}
	if err := s.parseAddress(conn.String("address")); err != nil {
		return nil, err
	}
	if s.loc, err = conn.Location("time_zone"); err != nil {
		return nil, err
	}
	if s.clientID == "" {
		sum := sha256.Sum256([]byte(in.Instance))
		s.clientID = "outfeed-" + hex.EncodeToString(sum[:])[:15] // 23 characters, which every broker takes
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	known, err := decodeCursor(in.Resume)
	if err != nil {
		return nil, err
	}
	return newSource(s, known), nil
}

// parseAddress reads host, port and whether to use TLS.
func (s *settings) parseAddress(text string) error {
	wrong := &connector.OptionError{Option: "address", Message: "is not an address: write host:1883, mqtt://host:1883 or mqtts://host:8883"}
	if !strings.Contains(text, "://") {
		text = "mqtt://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
		return wrong
	}
	if u.User != nil {
		return &connector.OptionError{Option: "address", Message: "holds a user name: write it as username and the password as the secret option password"}
	}
	port := u.Port()
	switch u.Scheme {
	case "mqtt", "tcp":
		if port == "" {
			port = "1883"
		}
	case "mqtts", "ssl", "tls":
		s.tls = true
		if port == "" {
			port = "8883"
		}
	default:
		return wrong
	}
	s.host, s.address = u.Hostname(), net.JoinHostPort(u.Hostname(), port)
	return nil
}

func (s *settings) check() error {
	if err := checkTopic(s.topic); err != nil {
		return err
	}
	if s.keepAlive < time.Second || s.keepAlive > 18*time.Hour {
		return &connector.OptionError{Option: "keep_alive", Message: "must be between 1s and 18h"}
	}
	if s.caFile != "" && !s.tls {
		return &connector.OptionError{Option: "ca_file", Message: "is of no use without TLS: write the address as mqtts://host:8883"}
	}
	if !s.password.Empty() && s.username == "" {
		return &connector.OptionError{Option: "username", Message: "is missing: a password needs one"}
	}
	if s.topicAs == "" {
		return nil
	}
	schema := s.Declared
	if schema == nil {
		schema = s.Schema
	}
	switch i := schema.Index(s.topicAs); {
	case i < 0:
		return &connector.OptionError{Option: "topic_as", Message: "names no column of the schema: " + expr.Unknown("column", s.topicAs, schema.Names())}
	case schema[i].Type != expr.String:
		return &connector.OptionError{Option: "topic_as", Message: "names a column that is not of type string"}
	}
	return nil
}

// checkTopic checks a topic filter as section 4.7 of the MQTT 5 standard defines it.
func checkTopic(topic string) error {
	levels := strings.Split(topic, "/")
	for i, level := range levels {
		switch {
		case level == "#" && i < len(levels)-1:
			return &connector.OptionError{Option: "topic", Message: "has # before its last level; # stands for all further levels"}
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return &connector.OptionError{Option: "topic", Message: "has + or # beside other characters in a level; each stands alone, as in plant/+/state"}
		}
	}
	if topic == "" || len(topic) > 65535 || strings.ContainsRune(topic, 0) {
		return &connector.OptionError{Option: "topic", Message: "must be a topic such as plant/press/+/state"}
	}
	return nil
}
