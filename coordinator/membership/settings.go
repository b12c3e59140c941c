package membership

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	farrierv1 "github.com/farrier-project/farrier/api/gen/farrier/v1"
	"github.com/farrier-project/farrier/coordinator/command"
	"github.com/farrier-project/farrier/coordinator/refusal"
	"github.com/farrier-project/farrier/pkg/fault"
)

// GetSettings implements ClusterService.
func (s *Service) GetSettings(ctx context.Context, _ *farrierv1.GetSettingsRequest) (*farrierv1.GetSettingsResponse, error) {
	v, err := s.cfg.Desk.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	return &farrierv1.GetSettingsResponse{Settings: settingsOut(v.Settings())}, nil
}

// UpdateSettings implements ClusterService.
func (s *Service) UpdateSettings(ctx context.Context, req *farrierv1.UpdateSettingsRequest) (*farrierv1.UpdateSettingsResponse, error) {
	next := s.cfg.Desk.View().Settings()
	paths := req.GetMask().GetPaths()
	if len(paths) == 0 {
		return nil, fault.Wrap("update settings", refusal.Invalid("mask", "name the settings to change").WithHelp("%s", settingsHelp()))
	}
	for _, p := range paths {
		if err := setSetting(&next, req.GetSettings(), p); err != nil {
			return nil, fault.Wrap("update settings", err)
		}
	}
	if next.SessionTTL < time.Second {
		return nil, fault.Wrap("update settings", refusal.Invalid("settings.session_ttl", "it must be at least 1 s: agents renew every 500 ms"))
	}
	if _, err := s.cfg.Desk.Propose(ctx, command.UpdateSettings{Settings: next}); err != nil {
		return nil, fault.Wrap("update settings", err)
	}
	return &farrierv1.UpdateSettingsResponse{Settings: settingsOut(s.cfg.Desk.View().Settings())}, nil
}

// durationSetting is a timeout with the range that makes sense.
type durationSetting struct {
	path     string
	at       func(*command.Settings) *time.Duration
	in       func(*farrierv1.Settings) *durationpb.Duration
	min, max time.Duration
}

var durationSettings = []durationSetting{ // read-only
	{"session_ttl", func(s *command.Settings) *time.Duration { return &s.SessionTTL }, (*farrierv1.Settings).GetSessionTtl, time.Second, time.Minute},
	{"deploy_callback_timeout", func(s *command.Settings) *time.Duration { return &s.DeployTimeout }, (*farrierv1.Settings).GetDeployCallbackTimeout, time.Second, 24 * time.Hour},
	{"clean_callback_timeout", func(s *command.Settings) *time.Duration { return &s.CleanTimeout }, (*farrierv1.Settings).GetCleanCallbackTimeout, time.Second, 24 * time.Hour},
	{"inspect_wait_timeout", func(s *command.Settings) *time.Duration { return &s.InspectTimeout }, (*farrierv1.Settings).GetInspectWaitTimeout, time.Second, 24 * time.Hour},
	{"boot_attempt_ttl", func(s *command.Settings) *time.Duration { return &s.BootTTL }, (*farrierv1.Settings).GetBootAttemptTtl, time.Second, 24 * time.Hour},
	{"ramdisk_silence", func(s *command.Settings) *time.Duration { return &s.RamdiskSilence }, (*farrierv1.Settings).GetRamdiskSilence, time.Second, time.Hour},
	{"ramdisk_heartbeat", func(s *command.Settings) *time.Duration { return &s.RamdiskHeartbeat }, (*farrierv1.Settings).GetRamdiskHeartbeat, 100 * time.Millisecond, time.Hour},
	{"bmc_change_deadline", func(s *command.Settings) *time.Duration { return &s.BMCChangeDeadline }, (*farrierv1.Settings).GetBmcChangeDeadline, 100 * time.Millisecond, 10 * time.Minute},
	{"step_deadline", func(s *command.Settings) *time.Duration { return &s.StepDeadline }, (*farrierv1.Settings).GetStepDeadline, 100 * time.Millisecond, time.Hour},
}

// numberSetting is a count.
type numberSetting struct {
	path     string
	at       func(*command.Settings) *uint32
	in       func(*farrierv1.Settings) uint32
	min, max uint32
}

var numberSettings = []numberSetting{ // read-only
	{"step_tries", func(s *command.Settings) *uint32 { return &s.StepTries }, (*farrierv1.Settings).GetStepTries, 1, 100},
	{"boot_tries", func(s *command.Settings) *uint32 { return &s.BootTries }, (*farrierv1.Settings).GetBootTries, 1, 100},
	{"max_concurrent_deploy", func(s *command.Settings) *uint32 { return &s.MaxDeploy }, (*farrierv1.Settings).GetMaxConcurrentDeploy, 1, 100000},
	{"max_concurrent_clean", func(s *command.Settings) *uint32 { return &s.MaxClean }, (*farrierv1.Settings).GetMaxConcurrentClean, 1, 100000},
}

func setSetting(next *command.Settings, in *farrierv1.Settings, path string) error {
	for _, d := range durationSettings {
		if d.path == path {
			value := d.in(in).AsDuration()
			if d.in(in).CheckValid() != nil || value < d.min || value > d.max {
				return refusal.Invalid("settings."+path, "%v is not between %v and %v", value, d.min, d.max)
			}
			*d.at(next) = value
			return nil
		}
	}
	for _, n := range numberSettings {
		if n.path == path {
			if n.in(in) < n.min || n.in(in) > n.max {
				return refusal.Invalid("settings."+path, "%d is not between %d and %d", n.in(in), n.min, n.max)
			}
			*n.at(next) = n.in(in)
			return nil
		}
	}
	switch path {
	case "automated_clean":
		next.AutomatedClean = in.GetAutomatedClean()
	case "erase":
		switch in.GetErase() {
		case "auto", "discard", "overwrite", "metadata":
			next.Erase = in.GetErase()
		default:
			return refusal.Invalid("settings.erase", "%q is not auto, discard, overwrite or metadata", refusal.Clip(in.GetErase()))
		}
	default:
		return refusal.Invalid("mask", "there is no setting %q", refusal.Clip(path)).WithHelp("%s", settingsHelp())
	}
	return nil
}

func settingsHelp() string {
	names := []string{"automated_clean", "erase"}
	for _, d := range durationSettings {
		names = append(names, d.path)
	}
	for _, n := range numberSettings {
		names = append(names, n.path)
	}
	return "the settings are " + strings.Join(names, ", ")
}

func settingsOut(s command.Settings) *farrierv1.Settings {
	return &farrierv1.Settings{
		SessionTtl: durationpb.New(s.SessionTTL), DeployCallbackTimeout: durationpb.New(s.DeployTimeout),
		CleanCallbackTimeout: durationpb.New(s.CleanTimeout), InspectWaitTimeout: durationpb.New(s.InspectTimeout),
		BootAttemptTtl: durationpb.New(s.BootTTL), RamdiskSilence: durationpb.New(s.RamdiskSilence),
		RamdiskHeartbeat: durationpb.New(s.RamdiskHeartbeat), BmcChangeDeadline: durationpb.New(s.BMCChangeDeadline),
		StepDeadline: durationpb.New(s.StepDeadline), StepTries: s.StepTries, BootTries: s.BootTries,
		AutomatedClean: s.AutomatedClean, MaxConcurrentDeploy: s.MaxDeploy, MaxConcurrentClean: s.MaxClean, Erase: s.Erase,
	}
}
