package flow

// Limit groups kinds that share a limit on how many flows may be at work.
type Limit uint8

const (
	Unlimited   Limit = iota
	LimitDeploy       // Deploy, Rebuild
	LimitClean        // Clean, Undeploy
)

// Limit is the one that flows of the kind count against.
func (k Kind) Limit() Limit {
	switch k {
	case Deploy, Rebuild:
		return LimitDeploy
	case Clean, Undeploy:
		return LimitClean
	default:
		return Unlimited
	}
}
