package kube

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// deploymentProblem says why the replicas of a Deployment are not even made: a quota, a policy. Waiting may help.
func deploymentProblem(d *appsv1.Deployment) (problem string, fatal bool) {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			text := oneLine(c.Message)
			switch {
			case strings.Contains(text, "exceeded quota"):
				text += "; raise the quota of the namespace (kubectl get resourcequota) or the service's limits"
			case strings.Contains(text, "violates PodSecurity"):
				text += "; the namespace's pod security level refuses it"
			}
			return text, false
		}
	}
	return "", false
}

// podProblem says in words why a pod is not ready and what would help; fatal when waiting longer cannot. "" when
// nothing is known to be wrong.
func podProblem(pod *corev1.Pod) (problem string, fatal bool) {
	if pod.DeletionTimestamp != nil || ready(pod) {
		return "", false
	}
	if c := condition(pod, corev1.PodScheduled); c.Status == corev1.ConditionFalse {
		return "no node takes it: " + oneLine(c.Message) + "; add nodes, or lower the service's limits", false
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			if text, fatal := waitingProblem(c, w); text != "" {
				return text, fatal
			}
		}
		if t := c.State.Terminated; t != nil {
			return ending(t), t.Reason == "StartError"
		}
		if t := c.LastTerminationState.Terminated; t != nil && c.RestartCount > 0 && !c.Ready {
			return ending(t), t.Reason == "StartError"
		}
		if c.State.Running != nil && !c.Ready {
			return "it runs and its probe does not answer yet; see why: kubectl describe pod " + pod.Name, false
		}
	}
	return "", false
}

// waitingProblem explains why a container does not start, by the kubelet's reasons.
func waitingProblem(c corev1.ContainerStatus, w *corev1.ContainerStateWaiting) (problem string, fatal bool) {
	text := oneLine(w.Message)
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
		help := "is the registry there, and may the node read from it?"
		if strings.Contains(text, "not found") {
			return fmt.Sprintf("its image is not there: %s: %s", c.Image, text), true
		}
		return fmt.Sprintf("its image cannot be had: %s: %s; %s", c.Image, text, help), w.Reason == "InvalidImageName"
	case "CreateContainerConfigError", "CreateContainerError":
		return "its container cannot be made: " + text, true
	case "RunContainerError":
		return "its program cannot be started: " + text, true
	case "CrashLoopBackOff":
		if t := c.LastTerminationState.Terminated; t != nil {
			return ending(t) + "; it is started again with growing pauses", t.Reason == "StartError"
		}
		return "it ends again and again: " + text, false
	}
	return "", false
}

// ending says how a program ended, with the last lines that it wrote.
func ending(t *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("ended with exit code %d", t.ExitCode)
	switch {
	case t.Reason == "OOMKilled":
		text = "it used more memory than its limit and was killed; raise limits.memory"
	case t.Reason == "StartError":
		text = "its program cannot be started"
	case t.Signal != 0:
		text = fmt.Sprintf("ended by signal %d", t.Signal)
	}
	if words := oneLine(t.Message); words != "" {
		text += "; its last words: " + words
	}
	return text
}

// oneLine is the last lines of a text as one, at most 400 characters.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 400 {
		text = "…" + strings.ToValidUTF8(text[len(text)-400:], "")
	}
	return text
}
