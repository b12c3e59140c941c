// Package report is what a measurement comes to: figures beside their goals and anchors, as a table and as JSON.
package report
