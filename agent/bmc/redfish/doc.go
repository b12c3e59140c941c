// Package redfish drives a BMC that speaks DMTF Redfish (DSP0266), on gofish.
//
// One Client is one node's BMC: one HTTP client with bounded replies, no proxy, redirects to the same origin only,
// and credentials that never leave it. Authentication is by session, with basic as the fallback where a service
// has no sessions. Every set is read back. Services differ: a mode that cannot be set, an ETag that never matches,
// a 500 on a PATCH that took effect are lived with, and what the BMC says afterwards decides.
//
// driver_info, with Ironic's names:
//
//	redfish_address    required: https://host[:port]; the scheme defaults to https
//	redfish_username   and redfish_password: required unless the service needs none
//	redfish_system_id  path of the system; default: the only one
//	redfish_auth_type  "auto" (session, then basic; default), "session", "basic"
//	redfish_verify_ca  "true" (the system's CAs; default), "false", or PEM certificates to trust
//	redfish_pin        hex SHA-256 of the public key (SPKI) in the BMC's certificate; replaces redfish_verify_ca
package redfish
