package main

import (
	"bytes"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// broker is the presses' MQTT broker.
type broker struct{ server *mochi.Server }

// openBroker listens and serves in the library's goroutines until close.
func openBroker(o options, log *slog.Logger) (*broker, error) {
	server := mochi.New(&mochi.Options{InlineClient: true, Logger: log.With("part", "broker")})
	d := &doorman{user: []byte(o.mqttUser)}
	if o.mqttUser != "" {
		password, err := os.ReadFile(o.mqttPasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read the broker's password: %w", err)
		}
		d.password = bytes.TrimRight(password, "\r\n")
	}
	if err := server.AddHook(d, nil); err != nil {
		return nil, fmt.Errorf("set the broker's user: %w", err)
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "plant", Address: o.mqttListen})); err != nil {
		return nil, fmt.Errorf("the broker cannot listen on %s; name another address with -mqtt-listen: %w", o.mqttListen, err)
	}
	if err := server.Serve(); err != nil {
		return nil, fmt.Errorf("start the broker: %w", err)
	}
	return &broker{server: server}, nil
}

// publish sends a message as JSON with QoS 1.
func (b *broker) publish(topic string, message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("write a press's message: %w", err)
	}
	if err := b.server.Publish(topic, text, false, 1); err != nil {
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	return nil
}

func (b *broker) close() error {
	if err := b.server.Close(); err != nil {
		return fmt.Errorf("stop the broker: %w", err)
	}
	return nil
}

// doorman lets in who knows the password, or everyone when there is none.
type doorman struct {
	mochi.HookBase
	user, password []byte
}

// ID names the hook.
func (*doorman) ID() string { return "doorman" }

// Provides says which questions the hook answers.
func (*doorman) Provides(question byte) bool {
	return question == mochi.OnConnectAuthenticate || question == mochi.OnACLCheck
}

// OnConnectAuthenticate checks a client's password.
func (d *doorman) OnConnectAuthenticate(_ *mochi.Client, packet packets.Packet) bool {
	if len(d.user) == 0 {
		return true
	}
	user := subtle.ConstantTimeCompare(packet.Connect.Username, d.user)
	return user&subtle.ConstantTimeCompare(packet.Connect.Password, d.password) == 1
}

// OnACLCheck lets clients read, and only the plant itself publish.
func (*doorman) OnACLCheck(_ *mochi.Client, _ string, write bool) bool { return !write }
