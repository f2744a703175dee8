{{/* A value as TOML. JSON's strings, numbers, booleans and arrays are TOML's; a table stands on one line. TOML has no null:
what is null is left out. */}}
{{- define "otel-k8s-cgroup.toml" -}}
{{- if kindIs "map" . -}}
{{- $items := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $items = append $items (printf "%s = %s" (include "otel-k8s-cgroup.tomlKey" $key) (include "otel-k8s-cgroup.toml" $value)) -}}
{{- end -}}
{{- end -}}
{{- if $items }}{ {{ join ", " $items }} }{{ else }}{}{{ end -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- if not (kindIs "invalid" .) }}{{ $items = append $items (include "otel-k8s-cgroup.toml" .) }}{{ end -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{- define "otel-k8s-cgroup.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end -}}
{{- end -}}

{{/* The configuration file: what follows from the chart's values, and `config`. */}}
{{- define "otel-k8s-cgroup.configFile" -}}
{{- $made := dict "cgroup_root" "/host/sys/fs/cgroup" "otlp_endpoint" .Values.otlp.endpoint -}}
{{- with .Values.otlp.tls -}}
{{- if .secret -}}
{{- range $setting, $entry := dict "otlp_certificate" .ca "otlp_client_certificate" .certificate "otlp_client_key" .key -}}
{{- if $entry }}{{ $_ := set $made $setting (printf "/etc/otel-k8s-cgroup/otlp-tls/%s" $entry) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.health -}}
{{- if .enabled }}{{ $_ := set $made "health_listen" (printf "%s:%v" .address .port) }}{{ end -}}
{{- if .scrape }}{{ $_ := set $made "scrape" true }}{{ end -}}
{{- end -}}
{{- if and (ne .Values.state.kind "none") (ne .Values.otlp.endpoint "none") -}}
{{- $_ := set $made "state_file" "/var/lib/otel-k8s-cgroup/state.json" -}}
{{- end -}}
{{- if eq .Values.podSource "kubelet" -}}
{{- $_ := set $made "pod_source" "kubelet" -}}
{{- $_ := set $made "kubelet_tls_server_name" "${NODE_NAME}" -}}
{{- if .Values.kubelet.certificate }}{{ $_ := set $made "kubelet_ca_file" "/host/kubelet.crt" }}{{ end -}}
{{- end -}}
{{- range $key, $value := .Values.config -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $made $key $value }}{{ end -}}
{{- end -}}
{{- $lines := list -}}
{{- range $key, $value := $made -}}
{{- $lines = append $lines (printf "%s = %s" (include "otel-k8s-cgroup.tomlKey" $key) (include "otel-k8s-cgroup.toml" $value)) -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}

{{/* name=value,name2=value2 with percent-encoded values: of headers, and of OTEL_RESOURCE_ATTRIBUTES. */}}
{{- define "otel-k8s-cgroup.baggage" -}}
{{- $items := list -}}
{{- range $key, $value := . -}}
{{- $items = append $items (printf "%s=%s" $key (toString $value | urlquery | replace "+" "%20")) -}}
{{- end -}}
{{- join "," $items -}}
{{- end -}}

{{/* Name of the Secret with the headers, "" for none. */}}
{{- define "otel-k8s-cgroup.headersSecret" -}}
{{- if .Values.otlp.headers }}{{ include "otel-k8s-cgroup.fullname" . }}-otlp{{ else }}{{ .Values.otlp.headersSecret.name }}{{ end -}}
{{- end -}}
