// Package membership serves what is about the cluster itself: who its coordinators are, how others join it (tokens, certificates, the
// roster), its settings and its snapshots.
//
// A token is used up before anything is issued, and a certificate is renewed for its own key only. A coordinator that joined is
// recorded first and becomes a voter once it is reached and has caught up (KeepVoters); one that comes back empty under the name
// of a member is refused, because it has forgotten what it acknowledged.
//
// The replica is an interface here (Cluster, Reader). The room starts no goroutine; the server room runs KeepVoters.
package membership
