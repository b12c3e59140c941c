// Package dispatch is the shell between the replicated state and the rack agents. While its member leads, it
//
//   - moves replicated time: a tick every 250 ms that carries the renewals received, each of which is
//     acknowledged only when its tick is applied, and the timeouts and resumptions that are due;
//   - serves one stream per agent (RackService): assignments, orders and cancellations down, outcomes, edges and
//     lock requests up, many in a message. What arrives while a proposal is under way becomes the next proposal,
//     as a whole;
//   - keeps what each agent has been told equal to what plan derives from the newest view: level, not edge. A
//     new stream gets everything, then Synced, then differences, found by following the events;
//   - lets callers wait for a held lock, first come, first served: see ProposeQueued;
//   - remembers what running steps say of their progress. That is memory, and gone with the leadership.
//
// It decides nothing: Apply checks every command again, and plan names the orders. When the leadership is lost
// all streams end with a redirect, all waiters with fault.NotLeader, and nothing else needs to be undone.
//
// # Goroutines
//
// Run has three: planner (owns what the agents were told), ticks, and the waiters' queue. Each stream has its
// reader, its writer and its submitter, which end before the stream's handler returns. They meet in the
// planner's notes, the stream's outbox and the waitlist, each behind its own mutex; no two are ever held at once.
package dispatch
