package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func appName(n int) string { return fmt.Sprintf("shop-%d", n) }

func metadata(n int, namespace string) map[string]any {
	return map[string]any{"name": appName(n), "namespace": namespace, "labels": map[string]any{"number": strconv.Itoa(n)}}
}

// spillwayContender is our own server: one private service, which has no gateway to wait for.
func (b *kubeBench) spillwayContender() contender {
	namespace := "bench-spillway"
	return contender{
		title: "Spillway", namespace: namespace, collection: "/apis/spillway.dev/v1alpha1/namespaces/" + namespace + "/apps",
		object: func(n int, image string) map[string]any {
			return map[string]any{"apiVersion": "spillway.dev/v1alpha1", "kind": "App", "metadata": metadata(n, namespace), "spec": map[string]any{
				"app": appName(n), "watch": "0s",
				"services": map[string]any{"www": map[string]any{"image": image, "scale": replicas, "port": 8080, "strategy": "rolling"}},
			}}
		},
		done: func(o map[string]any, round int) bool {
			return textAt(o, "status", "phase") == "Healthy" && int(numberAt(o, "status", "stable")) == round+1
		},
		start: func(dir, kubeconfig string) (*process, error) {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			return start(dir, "spillway", nil, b.spillway, "server", "--kubernetes", "--kubeconfig", kubeconfig, "--namespace", namespace,
				"--dir", filepath.Join(dir, "state"), "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--insecure-registry", b.registry, "--log-level", "debug")
		},
	}
}

// argoContender is Argo Rollouts with a canary of one step and without analysis.
func (b *kubeBench) argoContender() contender {
	namespace := "bench-argo"
	return contender{
		title: "Argo Rollouts", namespace: namespace, collection: "/apis/argoproj.io/v1alpha1/namespaces/" + namespace + "/rollouts",
		object: func(n int, image string) map[string]any {
			labels := map[string]any{"app": appName(n)}
			return map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": metadata(n, namespace), "spec": map[string]any{
				"replicas": replicas, "revisionHistoryLimit": 0, "selector": map[string]any{"matchLabels": labels},
				"strategy": map[string]any{"canary": map[string]any{"steps": []any{map[string]any{"setWeight": 20}}}},
				"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": map[string]any{
					"containers": []any{map[string]any{"name": "www", "image": image, "ports": []any{map[string]any{"containerPort": 8080}}}},
				}},
			}}
		},
		done: func(o map[string]any, round int) bool {
			image := ""
			if list, ok := valueAt(o, "spec", "template", "spec", "containers").([]any); ok && len(list) == 1 {
				image, _ = list[0].(map[string]any)["image"].(string)
			}
			return image == b.images[round] && textAt(o, "status", "phase") == "Healthy" && numberAt(o, "status", "updatedReplicas") == replicas &&
				textAt(o, "status", "observedGeneration") == strconv.Itoa(int(numberAt(o, "metadata", "generation"))) &&
				textAt(o, "status", "stableRS") == textAt(o, "status", "currentPodHash")
		},
		start: func(dir, kubeconfig string) (*process, error) {
			return start(dir, "argo-rollouts", nil, b.argo, "--kubeconfig", kubeconfig, "--namespace", namespace, "--namespaced", "--leader-elect=false",
				"--qps", "-1", "--loglevel", "warn", "--metricsport", "18090", "--healthzPort", "18080")
		},
	}
}

// argoKinds installs the kinds of Argo Rollouts from the copy of its module.
func (b *kubeBench) argoKinds(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(b.argo), "source", "manifests", "crds", "*-crd.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("the kinds of Argo Rollouts are not beside %s (%w)", b.argo, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimSpace(between(string(text), "\n  name:", "\n"))
		if err := b.kind(ctx, name, string(text)); err != nil {
			return err
		}
	}
	return nil
}

// kind installs one kind and waits until it can be used.
func (b *kubeBench) kind(ctx context.Context, name string, definition any) error {
	path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + name
	if err := b.cluster.apply(ctx, path, definition); err != nil {
		return err
	}
	for range 100 {
		var there map[string]any
		if err := b.cluster.do(ctx, "GET", path, plainJSON, nil, &there); err != nil {
			return err
		}
		conditions, _ := valueAt(there, "status", "conditions").([]any)
		for _, c := range conditions {
			if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
				return nil
			}
		}
		pass(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("kind %s is not there after ten seconds", name)
}
