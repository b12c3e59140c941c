// Package ballot compares the members' states: each says what hash its state has at certain indexes, and a majority of the voters
// is right.
//
// # Contract
//
//   - A Box keeps the newest few checkpoints of each member. Its Verdict says at which index a majority has another hash than this
//     member, and whether anybody differs at all: without a majority nobody knows who is right.
//   - Members without a vote have none here.
//   - The room says nothing about when and how messages travel, and does nothing about a verdict.
package ballot
