package secret

import "log/slog"

// Value is a secret that does not print itself. The zero Value is empty.
type Value struct{ v string }

// NewValue wraps a secret.
func NewValue(v string) Value { return Value{v} }

// Reveal returns the secret. Call it where it leaves for its use, and nowhere else.
func (s Value) Reveal() string { return s.v }

// IsZero tells whether there is no secret.
func (s Value) IsZero() bool { return s.v == "" }

// String implements fmt.Stringer.
func (Value) String() string { return "***" }

// GoString implements fmt.GoStringer.
func (Value) GoString() string { return "***" }

// MarshalText implements encoding.TextMarshaler, and with it JSON and YAML.
func (Value) MarshalText() ([]byte, error) { return []byte("***"), nil }

// LogValue implements slog.LogValuer.
func (Value) LogValue() slog.Value { return slog.StringValue("***") }
