{{- define "crossrag.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "crossrag.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "crossrag.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "crossrag.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "crossrag.selectorLabels" -}}
app.kubernetes.io/name: {{ include "crossrag.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "crossrag.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "crossrag.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "crossrag.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "crossrag.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "crossrag.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* Of pods that ask Kubernetes for nothing. */}}
{{- define "crossrag.noAccount" -}}
serviceAccountName: {{ include "crossrag.serviceAccount" . }}
automountServiceAccountToken: false
{{- end }}

{{/* Whether the head of Ray changes the number of workers. */}}
{{- define "crossrag.rayScales" -}}
{{ and .Values.ray.enabled (gt (int .Values.ray.worker.maxReplicas) (int .Values.ray.worker.minReplicas)) }}
{{- end }}

{{/* As the chart of Qdrant names its own. */}}
{{- define "crossrag.qdrant" -}}
{{- $name := default "qdrant" .Values.qdrant.nameOverride }}
{{- if .Values.qdrant.fullnameOverride }}{{ .Values.qdrant.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "crossrag.qdrantUrl" -}}
{{- if .Values.qdrantUrl }}{{ .Values.qdrantUrl }}
{{- else if .Values.qdrant.enabled }}http://{{ include "crossrag.qdrant" . }}:6333{{ end }}
{{- end }}

{{/* What cannot work is said here, and not by pods that do not start. */}}
{{- define "crossrag.check" -}}
{{- $many := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- if and .Values.qdrantUrl .Values.qdrant.enabled }}
{{- fail "qdrantUrl names a server and qdrant.enabled starts another: set qdrant.enabled=false" }}
{{- end }}
{{- if and (not (include "crossrag.qdrantUrl" .)) (not .Values.persistence.enabled) }}
{{- fail "without Qdrant the index is a folder of its own: set persistence.enabled=true, or qdrantUrl" }}
{{- end }}
{{- if and .Values.persistence.enabled $many (not .Values.ray.enabled) }}
{{- fail "an index folder has one server: set replicaCount=1 and autoscaling.enabled=false, or persistence.enabled=false" }}
{{- end }}
{{- if and .Values.ray.enabled (or .Values.persistence.enabled (not (include "crossrag.qdrantUrl" .))) }}
{{- fail "with ray.enabled the index is on Qdrant: set persistence.enabled=false, and qdrant.enabled or qdrantUrl" }}
{{- end }}
{{- if and .Values.ray.enabled .Values.autoscaling.enabled }}
{{- fail "autoscaling is of servers without Ray: set autoscaling.enabled=false, and ray.worker.minReplicas and maxReplicas" }}
{{- end }}
{{- if and .Values.ingest.enabled (or .Values.persistence.enabled (not (include "crossrag.qdrantUrl" .))) }}
{{- fail "ingest.enabled writes to Qdrant from a folder of its own: set persistence.enabled=false; a server with a folder takes uploads" }}
{{- end }}
{{- if and .Values.ingest.enabled (not .Values.ingest.documentsClaim) }}
{{- fail "ingest.documentsClaim names no claim with documents" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress.host names no host" }}
{{- end }}
{{- if not (or .Values.existingSecret (contains "sha256" .Values.settings)) }}
{{- fail "crossrag does not listen without a key: set existingSecret, or keys in settings (`crossrag key NAME` prints one)" }}
{{- end }}
{{- end }}

{{- define "crossrag.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "crossrag.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "crossrag.env" -}}
- name: CROSSRAG_INDEX__PATH
  value: /index
{{- with include "crossrag.qdrantUrl" . }}
- name: CROSSRAG_QDRANT__URL
  value: {{ . | quote }}
{{- end }}
{{- if .Values.existingSecret }}
{{- range $entry := list "CROSSRAG_SERVER__API_KEY" "OPENAI_API_KEY" }}
- name: {{ $entry }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.existingSecret }}
      key: {{ $entry }}
      optional: true
{{- end }}
{{- end }}
{{- if and .Values.qdrant.enabled (kindIs "bool" .Values.qdrant.apiKey) .Values.qdrant.apiKey }}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "crossrag.qdrant" . }}-apikey
      key: api-key
{{- else if .Values.existingSecret }}
- name: QDRANT_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.existingSecret }}
      key: QDRANT_API_KEY
      optional: true
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "crossrag.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
