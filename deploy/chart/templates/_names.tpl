{{- define "otel-k8s-cgroup.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "otel-k8s-cgroup.fullname" -}}
{{- $name := include "otel-k8s-cgroup.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of ClusterRoles, which have no namespace: two releases of one name in two namespaces must not share one. */}}
{{- define "otel-k8s-cgroup.clusterName" -}}
{{- $name := include "otel-k8s-cgroup.fullname" . -}}
{{- if eq $name .Release.Namespace -}}
{{- $name -}}
{{- else -}}
{{- printf "%s:%s" .Release.Namespace $name -}}
{{- end -}}
{{- end -}}

{{- define "otel-k8s-cgroup.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "otel-k8s-cgroup.fullname" .) -}}
{{- end -}}

{{- define "otel-k8s-cgroup.selector" -}}
app.kubernetes.io/name: {{ include "otel-k8s-cgroup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "otel-k8s-cgroup.labels" -}}
{{ include "otel-k8s-cgroup.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "otel-k8s-cgroup.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
