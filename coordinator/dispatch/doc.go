// Package dispatch is the shell between the replicated state and the rack agents. While its member leads, it
//
//   - serves one stream per agent (RackService): assignments, orders and cancellations down, outcomes, edges and
//     lock requests up, many in a message. What arrives while a proposal is under way becomes the next proposal,
//     as a whole;
//   - keeps what each agent has been told equal to what plan derives from the newest view: level, not edge. A
//     new stream gets everything, then Synced, then differences, found by following the events.
//
// What stands on its own has a room below it:
//
//	ticker    moves replicated time, and proposes what has fallen due
//	waitlist  lets callers wait for a held lock, first come, first served
//	proposer  puts commands of the leader's own and of its agents into the log
//	outbox    the messages that one agent's stream has yet to take
//	progress  what running steps say of themselves
//
// It decides nothing: Apply checks every command again, and plan names the orders. When the leadership is lost
// all streams end with a redirect, all waiters with fault.NotLeader, and nothing else needs to be undone.
//
// # Goroutines
//
// Run has three: planner (owns what the agents were told), ticker, and the waitlist. Each stream has its
// reader, its writer and its submitter, which end before the stream's handler returns. They meet in the
// planner's notes, the stream's outbox and the waitlist, each behind its own mutex; no two are ever held at once.
package dispatch
