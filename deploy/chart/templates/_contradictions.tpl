{{/* Ends the rendering where two values cannot both hold. values.schema.json refuses what is wrong by itself. */}}
{{- define "otel-k8s-cgroup.contradictions" -}}
{{- $instead := dict
  "k8s_node" "leave it out: it is the pod's own node"
  "cgroup_root" "set cgroupRoot instead"
  "state_file" "set state instead"
  "pod_source" "set podSource instead"
  "health_listen" "set health instead"
  "scrape" "set health.scrape instead"
  "kubelet_ca_file" "set kubelet.certificate instead"
  "otlp_endpoint" "set otlp.endpoint instead"
  "otlp_headers" "set otlp.headers or otlp.headersSecret instead (a ConfigMap is no place for a secret)"
  "otlp_certificate" "set otlp.tls instead"
  "otlp_client_certificate" "set otlp.tls instead"
  "otlp_client_key" "set otlp.tls instead" -}}
{{- range $key, $value := .Values.config -}}
{{- with get $instead $key }}{{ fail (printf "config.%s: %s" $key .) }}{{ end -}}
{{- end -}}
{{- if not (regexMatch `^(https?://[^\s@#]+|none)$` .Values.otlp.endpoint) }}
{{- fail (printf "otlp.endpoint is %q: give a URL that begins with http:// or https:// and has no user, or none" .Values.otlp.endpoint) }}
{{- end -}}
{{- /* As the exporter reads it: text or a list, in any case of their letters. */ -}}
{{- $groups := get (.Values.config | default dict) "metrics" | default list -}}
{{- if kindIs "slice" $groups }}{{ $groups = compact $groups | join "," }}{{ end -}}
{{- $groups = regexSplit "[\\s,]+" (lower $groups) -1 -}}
{{- if and (has "network" $groups) (not .Values.hostPID) -}}
{{- fail "config.metrics has network, but hostPID is false: without the host's PID namespace no pod's network is seen" -}}
{{- end -}}
{{- if and .Values.hostPID (not (has "network" $groups)) -}}
{{- fail "hostPID is set, but config.metrics has no network, which alone has a use for it" -}}
{{- end -}}
{{- $own := dict
  "podLabels" (include "otel-k8s-cgroup.labels" . | fromYaml)
  "podMonitor.labels" (include "otel-k8s-cgroup.labels" . | fromYaml)
  "podAnnotations" (dict "otel-k8s-cgroup/config" "") -}}
{{- range $where, $given := dict
  "podLabels" .Values.podLabels "podMonitor.labels" .Values.podMonitor.labels "podAnnotations" .Values.podAnnotations -}}
{{- range $key, $value := $given -}}
{{- if hasKey (get $own $where) $key }}{{ fail (printf "%s has %s, which the chart sets itself" $where $key) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with .Values.otlp -}}
{{- if and .headers .headersSecret.name -}}
{{- fail "otlp.headers and otlp.headersSecret.name are both set: keep one" -}}
{{- end -}}
{{- if and .tls.secret (not (or .tls.ca .tls.certificate)) -}}
{{- fail "otlp.tls.secret is set, but neither otlp.tls.ca nor otlp.tls.certificate: name the entry of the Secret to use" -}}
{{- end -}}
{{- if ne (empty .tls.certificate) (empty .tls.key) -}}
{{- fail "otlp.tls.certificate and otlp.tls.key belong together: set both or neither" -}}
{{- end -}}
{{- if and .tls.certificate (not .tls.secret) -}}
{{- fail "otlp.tls.certificate is set without otlp.tls.secret, the Secret that has it" -}}
{{- end -}}
{{- if eq .endpoint "none" -}}
{{- if not $.Values.health.scrape -}}
{{- fail "otlp.endpoint is none, but health.scrape is not set: what is measured would go nowhere" -}}
{{- end -}}
{{- if or .headers .headersSecret.name .tls.secret -}}
{{- fail "otlp.headers, otlp.headersSecret or otlp.tls is set, but otlp.endpoint is none: nothing is sent" -}}
{{- end -}}
{{- end -}}
{{- if and .tls.secret (hasPrefix "http://" .endpoint) -}}
{{- fail (printf "otlp.tls.secret is set, but otlp.endpoint is %s: with https:// it is sent to over TLS" .endpoint) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.podSource "kubelet" -}}
{{- if and .Values.rbac.create (semverCompare "<1.33-0" .Capabilities.KubeVersion.Version) (not .Values.kubelet.nodesProxy) -}}
{{- fail (printf "podSource kubelet needs the right nodes/proxy on Kubernetes %s (nodes/pods from 1.33 on), and that also runs commands in pods: allow it by kubelet.nodesProxy=true, or keep podSource api" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- else if .Values.kubelet.nodesProxy -}}
{{- fail "kubelet.nodesProxy is set, but podSource is api, which has no use for it" -}}
{{- end -}}
{{- if and .Values.podMonitor.create (not .Values.health.enabled) -}}
{{- fail "podMonitor.create is set, but health.enabled is false, and nothing answers at /metrics" -}}
{{- end -}}
{{- if and .Values.health.scrape (not .Values.health.enabled) -}}
{{- fail "health.scrape is set, but health.enabled is false, and nothing answers at /metrics" -}}
{{- end -}}
{{- if and .Values.podMonitor.create .Values.networkPolicy.create (not .Values.networkPolicy.scrapeFrom) -}}
{{- fail "podMonitor.create and networkPolicy.create are set: name in networkPolicy.scrapeFrom who may scrape" -}}
{{- end -}}
{{- if and .Values.rbac.extraRules (not .Values.rbac.create) -}}
{{- fail "rbac.extraRules is set, but rbac.create is false: add the rules to the role that you bind yourself" -}}
{{- end -}}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false: name the account to use in serviceAccount.name" -}}
{{- end -}}
{{- if and .Values.namespace.create .Release.IsInstall (lookup "v1" "Namespace" "" "kube-system") (not (lookup "v1" "Namespace" "" .Release.Namespace)) -}}
{{- fail (printf "namespace.create is for helm template: Helm needs namespace %s before it installs anything; make it with kubectl" .Release.Namespace) -}}
{{- end -}}
{{- with lookup "v1" "Namespace" "" .Release.Namespace -}}
{{- with get (.metadata.labels | default dict) "pod-security.kubernetes.io/enforce" -}}
{{- if ne . "privileged" -}}
{{- fail (printf "namespace %s enforces the Pod Security level %s, which refuses the hostPath volume of the cgroups: kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=privileged" $.Release.Namespace . $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
