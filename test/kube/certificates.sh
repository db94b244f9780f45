# One authority, a certificate for each component, and a kubeconfig for each that is a client. Sourced by up.sh.

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$dir/pki/$1.key"; }

# certificate NAME SUBJECT [ALTERNATIVE NAMES]
certificate() {
    key "$1"
    { echo extendedKeyUsage=serverAuth,clientAuth; test -z "${3-}" || echo "subjectAltName=$3"; } >"$dir/pki/extensions"
    openssl req -new -key "$dir/pki/$1.key" -subj "$2" |
        openssl x509 -req -CA "$dir/pki/ca.crt" -CAkey "$dir/pki/ca.key" -CAcreateserial -days 365 -out "$dir/pki/$1.crt" -extfile "$dir/pki/extensions" 2>/dev/null
}

# client NAME SUBJECT [ALTERNATIVE NAMES] is a certificate with a kubeconfig, all in one file.
client() {
    certificate "$@"
    cat >"$dir/$1.conf" <<END
apiVersion: v1
kind: Config
current-context: spillway
contexts: [{name: spillway, context: {cluster: spillway, user: $1}}]
clusters: [{name: spillway, cluster: {server: "$api", certificate-authority-data: $(base64 -w 0 "$dir/pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w 0 "$dir/pki/$1.crt"), client-key-data: $(base64 -w 0 "$dir/pki/$1.key")}}]
END
}

key ca
openssl req -x509 -new -key "$dir/pki/ca.key" -subj /CN=spillway-test -days 365 -out "$dir/pki/ca.crt"
certificate apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$node,IP:$kubernetes,DNS:localhost,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
certificate front-proxy /CN=front-proxy
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client kubelet /O=system:nodes/CN=system:node:node "IP:$node,DNS:node"
client proxy /CN=system:kube-proxy
openssl genrsa -out "$dir/pki/accounts.key" 2048 2>/dev/null
openssl rsa -in "$dir/pki/accounts.key" -pubout -out "$dir/pki/accounts.pub" 2>/dev/null
