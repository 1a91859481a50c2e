{{/* What the pods of both components have alike. All are called with a component. */}}

{{- define "ws-ingress.podMetadata" -}}
labels:
  {{- include "ws-ingress.podLabels" . | nindent 2 }}
{{- with .values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ws-ingress.podFields" -}}
serviceAccountName: {{ include "ws-ingress.serviceAccountName" . }}
{{- /* Services would become variables named WS_INGRESS_..., as the flags have. */}}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- $own := dict "labelSelector" (dict "matchLabels" (include "ws-ingress.selectorLabels" $ | fromYaml)) }}
{{- range . }}
- {{ hasKey . "labelSelector" | ternary . (merge (deepCopy .) $own) | toYaml | indent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ws-ingress.containerFields" -}}
name: {{ .name }}
image: {{ include "ws-ingress.image" . | quote }}
imagePullPolicy: {{ .values.image.pullPolicy }}
{{- with .values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
# It has begun once it answers; later, three missed answers end it. /readyz says why it is not ready.
startupProbe:
  httpGet: { path: /healthz, port: status }
  periodSeconds: 1
  timeoutSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: { path: /readyz, port: status }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /healthz, port: status }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
