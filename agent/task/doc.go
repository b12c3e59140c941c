// Package task is the agent's task manager: it carries out what work decides, and gives whoever acts on a node a
// task to act through.
//
// A Manager takes events in (Handle), writes the journal, starts and stops attempts on a bounded set of workers,
// and hands outcomes to its Sink. It keeps what the coordinators assigned, in memory only.
//
// A task is Exclusive or Shared. An Exclusive one has a fencing token: an order's, whose lock the coordinators
// release when its outcome is in, or one that the agent asked for itself, which is released here, exactly once,
// whatever ends the work. Before each effect on a BMC it waits for the right to act: the lease is fresh, the token
// is the newest, the intent is on disk. A Shared task has no token and takes no lock: it reads one consistent
// version of the node, and its type offers no call that changes anything; Upgrade makes an Exclusive one of it.
//
// The model is Ironic's ironic.conductor.task_manager: acquire, lazy ports, upgrade and downgrade, spawn after,
// the spawn-error hook, process event, resume cleaning, release. What differs: the node's state moves in the
// coordinators only, so an event is asked for and answered; and a wait is a place in a queue, not a poll.
package task
