package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestRender_AnAutoscalerThatIsFrozen(t *testing.T) {
	r := canary()
	targets := spillway.Targets{CPU: spillway.Percent(60), Memory: spillway.Percent(70), Tolerance: spillway.Percent(5)}
	w := rollout.Want{Group: spillway.Group{Service: "www", Release: 1}, Replicas: 4, Release: 1, Scaling: rollout.Scaling{Min: 4, Max: 12, Targets: targets, Frozen: true}}
	r.desired = rollout.Desired{Groups: []rollout.Want{w}}
	got := yamlOf(t, r)
	path := filepath.Join("testdata", "autoscaled.yaml")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != string(got) {
		t.Errorf("%s differs (%v); look at what -update writes", path, err)
	}
	r.desired.Groups[0].Replicas = 7
	before, after := strings.Replace(string(got), "replicas: 4", "", 1), strings.Replace(string(yamlOf(t, r)), "replicas: 7", "", 1)
	if lines(before) != lines(after) {
		t.Error("what an autoscaler chose changes more than the number")
	}
}

// lines are those that do not sum up others.
func lines(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, printAnnotation) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}

func TestScalingProblem_SaysWhatToDo(t *testing.T) {
	now := time.Now()
	at := func(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string, ago time.Duration) autoscalingv2.HorizontalPodAutoscalerCondition {
		return autoscalingv2.HorizontalPodAutoscalerCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now.Add(-ago))}
	}
	for name, c := range map[string]struct {
		condition autoscalingv2.HorizontalPodAutoscalerCondition
		says      string // "" = no problem
	}{
		"no metrics-server": {at(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetContainerResourceMetric",
			"unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)", time.Second), "metrics-server"},
		"just started":   {at(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetContainerResourceMetric", "did not receive metrics for targeted pods (pods might be unready)", time.Second), ""},
		"no figures":     {at(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetContainerResourceMetric", "did not receive metrics for targeted pods (pods might be unready)", time.Hour), "kubectl top pods"},
		"no right":       {at(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "deployments/scale is forbidden", time.Second), "kubectl describe hpa castle-www-1"},
		"at its maximum": {at(autoscalingv2.ScalingLimited, corev1.ConditionTrue, "TooManyReplicas", "the desired replica count is more than the maximum replica count", time.Second), "maximum of 12 replicas (max size reached); raise max in scale of www"},
		"at its minimum": {at(autoscalingv2.ScalingLimited, corev1.ConditionTrue, "TooFewReplicas", "the desired replica count is less than the minimum replica count", time.Second), ""},
	} {
		h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-1"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 12}}
		h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{c.condition}
		if got := scalingProblem(h, "www", now); !strings.Contains(got, c.says) || c.says == "" && got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestUnchanged_IsWhatAnAutoscalerOnlyMeasured(t *testing.T) {
	was := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Generation: 2}}
	is := was.DeepCopy()
	is.Status.DesiredReplicas, is.Status.CurrentMetrics = 3, make([]autoscalingv2.MetricStatus, 1)
	if !unchanged(was, is) {
		t.Error("figures wake the loop")
	}
	is.Generation = 3
	if unchanged(was, is) {
		t.Error("other bounds do not wake the loop")
	}
	if unchanged(&corev1.Pod{}, &corev1.Pod{}) {
		t.Error("a pod does not wake the loop")
	}
}
