package lifecycle

// States lists the 30 states, None excluded.
func States() []State {
	all := make([]State, 0, endOfStates-Enroll)
	for s := Enroll; s < endOfStates; s++ {
		all = append(all, s)
	}
	return all
}

// Stable states have no target: nothing moves a node out of them but a user's verb.
func (s State) Stable() bool {
	switch s {
	case Enroll, Manageable, Available, Active, Error, Rescue:
		return true
	}
	return false
}

// Transient states are those in which an agent acts. The lock is held.
func (s State) Transient() bool {
	switch s {
	case Verifying, Deploying, Deleting, Cleaning, Inspecting, Adopting, Rescuing, Unrescuing, Servicing:
		return true
	}
	return false
}

// Waiting states wait for the ramdisk. The lock is free.
func (s State) Waiting() bool {
	switch s {
	case DeployWait, CleanWait, InspectWait, RescueWait, ServiceWait:
		return true
	}
	return false
}

// Held states wait for an operator's unhold. The lock is free.
func (s State) Held() bool {
	switch s {
	case DeployHold, CleanHold, ServiceHold:
		return true
	}
	return false
}

// Failed states wait for a user to decide. Error is not one of them: it is stable.
func (s State) Failed() bool {
	switch s {
	case DeployFailed, CleanFailed, InspectFailed, AdoptFailed, RescueFailed, UnrescueFailed, ServiceFailed:
		return true
	}
	return false
}

// Unstable states can change without a request: they block a change of boot mode. Held and failed states are
// not among them.
func (s State) Unstable() bool { return s.Transient() || s.Waiting() }

// InCleaning tells whether s is cleaning or one of its wait, hold and failed states.
func (s State) InCleaning() bool {
	switch s {
	case Cleaning, CleanWait, CleanHold, CleanFailed:
		return true
	}
	return false
}

// UpdateAllowed tells whether a node may be changed in s although a target is set (Ironic's
// UPDATE_ALLOWED_STATES). Without a target every state allows it.
func (s State) UpdateAllowed() bool {
	switch s {
	case DeployFailed, Inspecting, InspectFailed, InspectWait, CleanFailed, Error, Verifying, AdoptFailed,
		RescueFailed, UnrescueFailed, ServiceHold, ServiceFailed:
		return true
	}
	return false
}

// DeleteAllowed tells whether a node may be deleted in s without maintenance (Ironic's DELETE_ALLOWED_STATES,
// and available as allow_deleting_available_nodes has it by default).
func (s State) DeleteAllowed() bool {
	switch s {
	case Manageable, Enroll, AdoptFailed, Available:
		return true
	}
	return false
}

// RewireAllowed tells whether interfaces, driver and resource class may change in s.
func (s State) RewireAllowed() bool {
	switch s {
	case Enroll, Inspecting, InspectWait, Manageable, Available:
		return true
	}
	return false
}

// PowerAllowed tells whether a user may change the power in s: never while cleaning.
func (s State) PowerAllowed() bool { return s != Cleaning && s != CleanWait }

// LookupAllowed tells whether a ramdisk may look its node up in s (Ironic's LOOKUP_ALLOWED_STATES).
func (s State) LookupAllowed() bool {
	switch s {
	case Deploying, DeployWait, Cleaning, CleanWait, Inspecting, InspectWait, Rescuing, RescueWait, ServiceWait:
		return true
	}
	return false
}

// PowerSyncExcluded tells whether the power sync leaves nodes in s alone.
func (s State) PowerSyncExcluded() bool {
	switch s {
	case DeployWait, CleanWait, Enroll, AdoptFailed:
		return true
	}
	return false
}
