// Package ticker moves replicated time while its member leads: a tick every 250 ms that carries the renewals received, each of which
// is acknowledged only when its tick is applied; then it proposes the timeouts and resumptions that have fallen due. Where nothing is
// measured against time, none passes and nothing is proposed.
package ticker
