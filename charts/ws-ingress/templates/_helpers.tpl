{{/*
Names, labels and images. A "component" is what most templates are called with: a dict of `root` (the top), `name` (controller or
dataplane) and `values` (its part of the values).
*/}}

{{- define "ws-ingress.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Objects append `-controller` and `-dataplane`, and names of Services end at 63 characters. */}}
{{- define "ws-ingress.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "ws-ingress.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* For roles that lie outside the namespace: two releases of one name in two namespaces need two of them. */}}
{{- define "ws-ingress.clusterName" -}}
{{ .Release.Namespace }}-{{ include "ws-ingress.fullname" . }}
{{- end }}

{{- define "ws-ingress.componentName" -}}
{{ include "ws-ingress.fullname" .root }}-{{ .name }}
{{- end }}

{{- define "ws-ingress.serviceAccountName" -}}
{{ .values.serviceAccount.name | default (include "ws-ingress.componentName" .) }}
{{- end }}

{{/* Of every object. Called with the top. */}}
{{- define "ws-ingress.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
  "app.kubernetes.io/name" (include "ws-ingress.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service }}
{{- toYaml (merge $own (.Values.commonLabels | default dict)) }}
{{- end }}

{{/* Of the objects of a component. */}}
{{- define "ws-ingress.componentLabels" -}}
{{- $own := dict "app.kubernetes.io/component" .name }}
{{- toYaml (merge $own (include "ws-ingress.labels" .root | fromYaml)) }}
{{- end }}

{{/* What Services and workloads select by. It can never change, so nothing of a user's is in it. */}}
{{- define "ws-ingress.selectorLabels" -}}
app.kubernetes.io/component: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/name: {{ include "ws-ingress.name" .root }}
{{- end }}

{{/* No version among them: a new chart with the same image must not replace pods that hold sockets. */}}
{{- define "ws-ingress.podLabels" -}}
{{- $own := include "ws-ingress.selectorLabels" . | fromYaml }}
{{- toYaml (merge $own (.values.podLabels | default dict) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{/* Empty: an autoscaler's. A number that is applied would take back what it chose, or be refused for that. */}}
{{- define "ws-ingress.replicas" -}}
{{- if not (kindIs "invalid" .values.replicaCount) }}
replicas: {{ .values.replicaCount }}
{{- end }}
{{- end }}

{{- define "ws-ingress.image" -}}
{{- $image := .values.image }}
{{- with .root.Values.global.imageRegistry | default $image.registry }}{{ . }}/{{ end }}
{{- $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}
