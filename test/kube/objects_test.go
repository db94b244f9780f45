//go:build kube

package kube

import (
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// echoObjects are two pods of the image, a Service for them, and a route to it from the Gateway.
func echoObjects(namespace, host, image string) (*apps.Deployment, *core.Service, *gateway.HTTPRoute) {
	labels := map[string]string{"app": "echo"}
	port := intstr.FromInt32(8080)
	named := meta.ObjectMeta{Name: "echo", Namespace: namespace}
	pod := core.PodTemplateSpec{
		ObjectMeta: meta.ObjectMeta{Labels: labels},
		Spec: core.PodSpec{Containers: []core.Container{{
			Name: "echo", Image: image,
			ReadinessProbe: &core.Probe{ProbeHandler: core.ProbeHandler{HTTPGet: &core.HTTPGetAction{Path: "/", Port: port}}, PeriodSeconds: 1},
		}}},
	}
	deployment := &apps.Deployment{
		ObjectMeta: named,
		Spec:       apps.DeploymentSpec{Replicas: new(int32(2)), Selector: &meta.LabelSelector{MatchLabels: labels}, Template: pod},
	}
	service := &core.Service{
		ObjectMeta: named,
		Spec:       core.ServiceSpec{Selector: labels, Ports: []core.ServicePort{{Name: "http", Port: 80, TargetPort: port}}},
	}
	to := gateway.BackendRef{BackendObjectReference: gateway.BackendObjectReference{Name: "echo", Port: new(gateway.PortNumber(80))}}
	route := &gateway.HTTPRoute{
		ObjectMeta: named,
		Spec: gateway.HTTPRouteSpec{
			CommonRouteSpec: gateway.CommonRouteSpec{ParentRefs: []gateway.ParentReference{{Name: "public", Namespace: new(gateway.Namespace("gateway"))}}},
			Hostnames:       []gateway.Hostname{gateway.Hostname(host)},
			Rules:           []gateway.HTTPRouteRule{{BackendRefs: []gateway.HTTPBackendRef{{BackendRef: to}}}},
		},
	}
	return deployment, service, route
}
