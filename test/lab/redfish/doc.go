// Package redfish emulates a Redfish BMC: HTTPS on a real socket with a certificate of its own, session and basic
// authentication, one system on top of a lab.Machine. It records every changing request with its time and session,
// and misbehaves on demand: delays, hangs, errors before and after the effect, wrong answers, ended sessions.
package redfish
