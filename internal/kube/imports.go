package kube

import (
	_ "github.com/google/go-containerregistry/pkg/v1/remote"
	_ "github.com/prometheus/common/expfmt"
	_ "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	_ "sigs.k8s.io/controller-runtime"
	_ "sigs.k8s.io/controller-runtime/pkg/client/fake"
	_ "sigs.k8s.io/gateway-api/apis/v1"
)
