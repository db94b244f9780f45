package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
)

// pullProblem says what is wrong with the Secret that has the credentials of a registry, and what to do; "" when nothing is.
// The error is about the question.
func pullProblem(ctx context.Context, c client.Client, namespace, name, registry string) (problem, remedy string, err error) {
	if host, _, _ := strings.Cut(registry, "/"); host != "" {
		registry = host
	} else {
		registry = "HOST"
	}
	remedy = fmt.Sprintf("kubectl create secret docker-registry %s -n %s --docker-server %s --docker-username USER --docker-password PASSWORD", name, namespace, registry)
	var secret corev1.Secret
	err = c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("there is no Secret %s in namespace %s, by which nodes are to pull images (--registry-secret): no pod that needs it starts", name, namespace), remedy, nil
	case err != nil:
		return "", "", err
	case len(secret.Data[corev1.DockerConfigJsonKey]) == 0:
		return fmt.Sprintf("Secret %s in namespace %s has no %s, so nodes cannot pull images by it (--registry-secret): its type is %s", name, namespace, corev1.DockerConfigJsonKey, secret.Type),
			fmt.Sprintf("kubectl delete secret %s -n %s, and %s", name, namespace, remedy), nil
	}
	return "", "", nil
}

// checkPullSecret looks whether the Secret is there that nodes pull images by.
func (i *Installer) checkPullSecret(ctx context.Context, s Server) error {
	if s.pullSecret() == "" {
		return nil
	}
	problem, remedy, err := pullProblem(ctx, i.client, s.Namespace, s.pullSecret(), s.flag("registry"))
	switch {
	case apierrors.IsForbidden(err): // who may not read it may still have it mounted
		return nil
	case err != nil:
		return explain("look for Secret "+s.pullSecret(), err)
	case problem != "":
		return fmt.Errorf("%s; nothing was changed. Make it first: %s: %w", problem, remedy, spillway.ErrInvalid)
	}
	return nil
}

// checkPullSecret looks whether the Secret is there that nodes pull images by.
func (p *Platform) checkPullSecret(ctx context.Context) spillway.Check {
	c := spillway.Check{Name: "registry secret", State: "warn"}
	problem, remedy, err := pullProblem(ctx, p.live, p.conf.Namespace, p.conf.PullSecret, p.conf.Registry)
	switch {
	case apierrors.IsForbidden(err):
		c.Text = fmt.Sprintf("the server may not see whether Secret %s is in namespace %s", p.conf.PullSecret, p.conf.Namespace)
		c.Remedy = "spillway kube upgrade gives it the right to read that one; or look: kubectl get secret " + p.conf.PullSecret + " -n " + p.conf.Namespace
	case err != nil:
		c.Text = spillway.Text(explain("look for Secret "+p.conf.PullSecret, err))
	case problem != "":
		c.State, c.Text, c.Remedy = "fail", problem, remedy
	default:
		c.State, c.Text = "ok", fmt.Sprintf("Secret %s is in namespace %s", p.conf.PullSecret, p.conf.Namespace)
	}
	return c
}

// pullHelp says what may be wrong where a registry does not let a node have an image.
func pullHelp(pod *corev1.Pod, said string) string {
	if !denied(said) {
		return ""
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		return "; nodes pull it without credentials: --registry-secret of the server names a Secret with them"
	}
	name := pod.Spec.ImagePullSecrets[0].Name
	return fmt.Sprintf("; nodes pull it by Secret %s: is it in the namespace, with the right password? kubectl get secret %s -n %s", name, name, pod.Namespace)
}

// denied reports whether a registry wanted other credentials, or any.
func denied(said string) bool {
	return slices.ContainsFunc([]string{"401", "403", "nauthorized", "orbidden", "denied", "authentication", "no basic auth"}, func(no string) bool { return strings.Contains(said, no) })
}

// pullDenied reports whether the registry did not let a node have the image of a pod.
func pullDenied(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		w := c.State.Waiting
		return w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") && denied(w.Message)
	})
}

// otherPulls are the templates that are there, by the key of their object, of pods whose images nodes pull by another Secret
// than those that are made now. They keep it: what runs is not restarted because the next release is pulled in another way.
// A Deployment takes the present one when a node is denied an image of it.
func (p *Platform) otherPulls(ctx context.Context, ref spillway.Ref, there map[string]client.Object) (map[string]corev1.PodTemplateSpec, error) {
	others := map[string]corev1.PodTemplateSpec{}
	for name, o := range there {
		var pod corev1.PodTemplateSpec
		switch o := o.(type) {
		case *appsv1.Deployment:
			pod = o.Spec.Template
		case *batchv1.Job: // whose template nobody can change
			pod = o.Spec.Template
		default:
			continue
		}
		if !slices.Equal(pod.Spec.ImagePullSecrets, pullSecrets(p.conf.PullSecret)) {
			others[name] = pod
		}
	}
	if len(others) == 0 {
		return nil, nil
	}
	pods, err := p.pods(ctx, ref)
	for i := range pods {
		if g, ok := groupOf(pods[i].Labels); ok && pullDenied(&pods[i]) {
			delete(others, "Deployment/"+groupName(ref, g))
		}
	}
	return others, err
}

// keepPulls leaves a template the Secret that it has where it is there, unless its pods are replaced anyway.
func (r *rendering) keepPulls(name string, pod *corev1.PodTemplateSpec) {
	if was, ok := r.otherPulls[name]; ok && was.Annotations[restartAnnotation] == pod.Annotations[restartAnnotation] {
		pod.Spec.ImagePullSecrets = was.Spec.ImagePullSecrets
	}
}
