package state

import (
	"reflect"
	"testing"
	"time"

	"github.com/farrier-project/farrier/coordinator/canon"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/flow"
	"github.com/farrier-project/farrier/coordinator/lock"
	"github.com/farrier-project/farrier/coordinator/node"
)

// TestHashSeesEveryField changes each field of each record in turn.
func TestHashSeesEveryField(t *testing.T) {
	var h canon.Writer
	for _, c := range []struct {
		rec  any
		hash func(any)
	}{
		{&node.Port{}, func(r any) { hashPort(&h, r.(*node.Port)) }},
		{&flow.Flow{Steps: make([]flow.Step, 1)}, func(r any) { f := r.(*flow.Flow); hashStep(&h, &f.Steps[0]); hashFlowHead(&h, f) }},
		{&Session{}, func(r any) { hashSession(&h, r.(*Session)) }},
		{&Agent{}, func(r any) { hashAgent(&h, r.(*Agent)) }},
		{&Ring{}, func(r any) { hashRing(&h, r.(*Ring)) }},
		{&Client{}, func(r any) { hashClient(&h, r.(*Client)) }},
		{&Answer{}, func(r any) { hashAnswer(&h, r.(*Answer)) }},
		{&JoinToken{}, func(r any) { hashJoinToken(&h, r.(*JoinToken)) }},
		{&Certificate{}, func(r any) { hashCertificate(&h, r.(*Certificate)) }},
		{&command.Member{}, func(r any) { hashMember(&h, r.(*command.Member)) }},
		{&Alarm{}, func(r any) { hashAlarm(&h, r.(*Alarm)) }},
		{&Inventory{}, func(r any) { hashInventory(&h, r.(*Inventory)) }},
		{&event{Fields: make([]command.Field, 1)}, func(r any) { hashEvent(&h, r.(*event)) }},
		{&command.Settings{}, func(r any) { hashSettings(&h, r.(*command.Settings)) }},
	} {
		sum := func() uint64 { h.Reset(); c.hash(c.rec); return h.Sum() }
		zero := sum()
		leaves(reflect.ValueOf(c.rec).Elem(), reflect.TypeOf(c.rec).Elem().Name(), func(path string, set, unset func()) {
			set()
			if sum() == zero {
				t.Errorf("the hash does not see %s", path)
			}
			unset()
		})
	}
}

// TestSameStepSeesEveryField: a field that it does not see would be left out of the hash.
func TestSameStepSeesEveryField(t *testing.T) {
	var was flow.Step
	st := was
	leaves(reflect.ValueOf(&st).Elem(), "Step", func(path string, set, unset func()) {
		set()
		if sameStep(&st, &was) {
			t.Errorf("%s was changed", path)
		}
		unset()
	})
	if !sameStep(&st, &was) {
		t.Error("nothing was changed")
	}
}

// leaves visits every settable leaf of a value, with a way to set it and to take it back.
func leaves(v reflect.Value, path string, fn func(path string, set, unset func())) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	leaf := func(x any) {
		fn(path, func() { v.Set(reflect.ValueOf(x).Convert(v.Type())) }, func() { v.Set(old) })
	}
	switch v.Interface().(type) {
	case time.Time:
		leaf(time.Unix(7, 0))
		return
	case lock.Token:
		leaf(lock.Token(7))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, fn)
		}
	case reflect.String:
		leaf("x")
	case reflect.Bool:
		leaf(true)
	case reflect.Int, reflect.Int64, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		leaf(7)
	case reflect.Array:
		leaves(v.Index(0), path+"[0]", fn)
	case reflect.Slice:
		if v.Len() > 0 {
			leaves(v.Index(0), path+"[0]", fn)
			return
		}
		fn(path, func() { v.Set(reflect.MakeSlice(v.Type(), 1, 1)) }, func() { v.Set(old) })
	case reflect.Map:
		fn(path, func() {
			m := reflect.MakeMap(v.Type())
			m.SetMapIndex(reflect.ValueOf("k"), reflect.New(v.Type().Elem()).Elem())
			v.Set(m)
		}, func() { v.Set(old) })
	case reflect.Pointer:
		fn(path, func() { v.Set(reflect.New(v.Type().Elem())) }, func() { v.Set(old) })
	}
}
