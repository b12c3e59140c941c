package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestEveryKindHasItsOwnText(t *testing.T) {
	seen := map[string]Kind{}
	for k := range endOfKinds {
		text := k.String()
		if text == "" {
			t.Errorf("kind %d has no text", k)
		}
		if other, dup := seen[text]; dup {
			t.Errorf("kinds %d and %d share %q", other, k, text)
		}
		seen[text] = k
		if ParseKind(text) != k {
			t.Errorf("ParseKind(%q) = %v", text, ParseKind(text))
		}
	}
	if ParseKind("from a newer version") != Internal {
		t.Error("unknown text is not Internal")
	}
}

func TestWrapKeepsKindHelpAndDetail(t *testing.T) {
	in := New(Locked, "acquire lock", "held by %s", "agent a").WithHelp("wait").WithDetail(&LockDetail{Token: 7})
	out := Wrap("deploy web-1", fmt.Errorf("propose: %w", in))
	var e *Error
	if !errors.As(out, &e) || e.Kind != Locked || e.Help != "wait" {
		t.Fatalf("got %+v", out)
	}
	if d, ok := e.Detail.(*LockDetail); !ok || d.Token != 7 {
		t.Errorf("detail %+v", e.Detail)
	}
	if want := "deploy web-1: propose: acquire lock: held by agent a"; out.Error() != want {
		t.Errorf("text %q, want %q", out.Error(), want)
	}
	if !Is(out, Locked) || Is(out, Busy) || Is(nil, Internal) {
		t.Error("Is is wrong")
	}
	if want := "deploy web-1: propose: acquire lock: held by agent a (locked); wait"; Summary(out) != want {
		t.Errorf("summary %q, want %q", Summary(out), want)
	}
	if plain := errors.New("plain"); Summary(plain) != "plain" {
		t.Errorf("summary of an error without a kind: %q", Summary(plain))
	}
	if again := Wrap("deploy web-1", out); again != out {
		t.Errorf("wrapped twice in the same words: %q", again)
	}
	if Wrap("x", nil) != nil {
		t.Error("Wrap(nil) is not nil")
	}
	if late := fmt.Errorf("read: %w", context.DeadlineExceeded); KindOf(late) != Timeout || KindOf(Wrap("find node", late)) != Timeout {
		t.Error("a deadline that passed is not a Timeout")
	}
	if KindOf(errors.New("plain")) != Internal {
		t.Error("an error without a kind is not Internal")
	}
}
