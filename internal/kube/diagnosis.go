package kube

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// deploymentProblem says why the replicas of a Deployment are not even made: a quota, a policy. Waiting may help.
func deploymentProblem(d *appsv1.Deployment) (problem string, fatal bool) {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return madeWords(c.Message), false
		}
	}
	return "", false
}

// madeWords adds to what the API server says of a pod that it does not make what would help.
func madeWords(message string) string {
	text := oneLine(message)
	switch {
	case strings.Contains(text, "exceeded quota"):
		text += "; raise the quota of the namespace (kubectl get resourcequota) or lower the service's limits"
	case strings.Contains(text, "failed quota") && strings.Contains(text, "must specify"):
		text += "; the namespace has a quota for what each pod has to say: give the service limits (cpu, memory)"
	case strings.Contains(text, "violates PodSecurity"):
		text += "; the namespace's pod security level refuses it"
	}
	return text
}

// podProblem says in words why a pod is not ready and what would help; fatal when waiting longer cannot. "" when
// nothing is known to be wrong.
func podProblem(pod *corev1.Pod) (problem string, fatal bool) {
	if pod.DeletionTimestamp != nil || ready(pod) {
		return "", false
	}
	if c := condition(pod, corev1.PodScheduled); c.Status == corev1.ConditionFalse {
		return pending(pod, c.Message), false
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			if text, fatal := waitingProblem(pod, c, w); text != "" {
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
			return unanswered + "; see why: kubectl describe pod " + pod.Name, false
		}
	}
	return "", false
}

// ran reports whether the program of a pod runs or has run, so that it may have written why it is not ready.
func ran(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil || c.State.Terminated != nil || c.RestartCount > 0
	})
}

// unanswered begins the problem of a pod that runs and is not ready. Its Events may tell more.
const unanswered = "it runs and its probe does not answer yet"

// pending says why no node takes a pod, and what would help.
func pending(pod *corev1.Pod, why string) string {
	nodes, _, _ := strings.Cut(why, " preemption:") // what evicting others would help
	nodes = strings.TrimRight(strings.TrimSuffix(nodes, "no new claims to deallocate,"), " .")
	text := "no node takes it: " + oneLine(nodes) + "; "
	var limits corev1.ResourceList
	if len(pod.Spec.Containers) > 0 {
		limits = pod.Spec.Containers[0].Resources.Requests
	}
	lower := func(what string) string {
		if name := serviceIn(pod); name != "" {
			return fmt.Sprintf(", or lower limits.%s of %s", what, name)
		}
		return "" // it is the server's own
	}
	switch {
	case strings.Contains(why, "Insufficient cpu"):
		return text + fmt.Sprintf("no node has %s CPU left: add nodes", limits.Cpu()) + lower("cpu")
	case strings.Contains(why, "Insufficient memory"):
		return text + fmt.Sprintf("no node has %s of memory left: add nodes", limits.Memory()) + lower("memory")
	case strings.Contains(why, "Too many pods"):
		return text + "the nodes have as many pods as they may: add nodes"
	}
	return text + "look at: kubectl describe nodes"
}

// waitingProblem explains why a container does not start, by the kubelet's reasons.
func waitingProblem(pod *corev1.Pod, c corev1.ContainerStatus, w *corev1.ContainerStateWaiting) (problem string, fatal bool) {
	text := oneLine(w.Message)
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
		help := "is the registry there, and may the node read from it?"
		if strings.Contains(text, "not found") {
			return fmt.Sprintf("its image is not there: %s: the registry does not have it (any more)%s", c.Image, deployAgain), true
		}
		return fmt.Sprintf("its image cannot be had: %s: %s; %s", c.Image, text, help+pullHelp(pod, text)), w.Reason == "InvalidImageName"
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

// deployAgain is what helps when the image of a replica is gone.
const deployAgain = "; deploy again"

// imageProblem says why a pod cannot be made of its image, or the image's program not be started; "" when that is not what
// is wrong with it.
func imageProblem(pod *corev1.Pod) string {
	for _, c := range pod.Status.ContainerStatuses {
		w, last := c.State.Waiting, c.LastTerminationState.Terminated
		if t := c.State.Terminated; t != nil {
			last = t
		}
		if w != nil && slices.Contains([]string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerError", "RunContainerError"}, w.Reason) || last != nil && last.Reason == "StartError" {
			problem, _ := podProblem(pod)
			return strings.TrimSuffix(problem, deployAgain)
		}
	}
	return ""
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
	switch words := oneLine(t.Message); {
	case words == "":
	case t.Reason == "StartError": // the runtime's, not the program's
		text += ": " + words
	default:
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
