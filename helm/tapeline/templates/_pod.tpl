{{- define "tapeline.name" -}}
{{- if contains "tapeline" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-tapeline" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tapeline.secret" -}}
{{ .Values.existingSecret | default (include "tapeline.name" .) }}
{{- end }}

{{- define "tapeline.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels that choose a component's pods: root, component. */}}
{{- define "tapeline.chosen" -}}
app.kubernetes.io/name: tapeline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tapeline.labels" -}}
{{ include "tapeline.chosen" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tapeline
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The type of the queues: replicated where there are nodes to replicate to. */}}
{{- define "tapeline.queueType" -}}
{{- $three := and (eq .Values.rabbitmq.mode "operator") (ge (int .Values.rabbitmq.replicas) 3) -}}
{{ .Values.rabbitmq.queueType | default (ternary "quorum" "classic" $three) }}
{{- end }}

{{/* Where companies and older candles of the simulated market are asked: the one listener that plays it. Empty: there is none. */}}
{{- define "tapeline.simulatedUrl" -}}
{{- if and (contains "simulator" .Values.mdl.feed) (not .Values.mdp.restUrl) (eq (int .Values.mdl.replicas) 1) }}http://{{ include "tapeline.name" . }}-mdl:9101/simulated{{ end }}
{{- end }}

{{/* The page's address in browsers. */}}
{{- define "tapeline.publicUrl" -}}
{{- if .Values.scp.publicUrl }}{{ .Values.scp.publicUrl }}{{ else if .Values.ingress.host }}https://{{ .Values.ingress.host }}{{ else }}http://127.0.0.1:8000{{ end }}
{{- end }}

{{- define "tapeline.streamUrl" -}}
{{- if or .Values.scp.publicUrl .Values.ingress.host }}{{ include "tapeline.publicUrl" . | replace "https://" "wss://" | replace "http://" "ws://" }}/v1/stream{{ else }}ws://127.0.0.1:8400/v1/stream{{ end }}
{{- end }}

{{- define "tapeline.restrictedPod" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "tapeline.restricted" -}}
{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, capabilities: { drop: [ALL] } }
{{- end }}

{{/* Where each secret comes from: name of the file → (Secret, key in it). */}}
{{- define "tapeline.sources" -}}
{{- $own := include "tapeline.secret" . -}}
{{- $name := include "tapeline.name" . -}}
mdq-url: {{ if eq .Values.rabbitmq.mode "external" }}{ name: {{ .Values.rabbitmq.urlSecret.name }}, key: {{ .Values.rabbitmq.urlSecret.key }} }{{ else if eq .Values.rabbitmq.mode "operator" }}{ name: {{ $name }}-rabbitmq-default-user, key: connection_string }{{ else }}{ name: {{ $own }}, key: mdq-url }{{ end }}
mdc-url: {{ if eq .Values.redis.mode "external" }}{ name: {{ .Values.redis.urlSecret.name }}, key: {{ .Values.redis.urlSecret.key }} }{{ else }}{ name: {{ $own }}, key: mdc-url }{{ end }}
streams-url: {{ if eq .Values.redis.mode "external" }}{ name: {{ .Values.redis.streamsUrlSecret.name }}, key: {{ .Values.redis.streamsUrlSecret.key }} }{{ else }}{ name: {{ $own }}, key: streams-url }{{ end }}
scp-database-url: { name: {{ .Values.scp.database.name }}, key: {{ .Values.scp.database.key }} }
oms-database-url: { name: {{ .Values.oms.database.name }}, key: {{ .Values.oms.database.key }} }
mdl-api-key: { name: {{ .Values.mdl.apiKeySecret.name }}, key: {{ .Values.mdl.apiKeySecret.key }} }
{{- range list "admin-token" "scp-secret-key" "engine-token" "market-data-token" }}
{{ . }}: { name: {{ $own }}, key: {{ . }} }
{{- end }}
{{- end }}

{{/*
The pod of one component. Arguments: root, component, values, command, admin (port), ports (name → number), env (variable → value),
secrets (variable → file), storage (mount path, when it has a volume), grace (seconds), preStop (seconds), apart (components that share no node if it can be).
*/}}
{{- define "tapeline.pod" -}}
{{- $root := .root -}}
{{- $sources := include "tapeline.sources" .root | fromYaml -}}
{{- $secrets := merge (dict "ADMIN_TOKEN" "admin-token" "MDQ_URL" "mdq-url" "MDC_URL" "mdc-url") (.secrets | default dict) -}}
metadata:
  labels:
    {{- include "tapeline.labels" . | nindent 4 }}
spec:
  serviceAccountName: {{ include "tapeline.name" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .grace | default 30 }}
  securityContext:
    {{- include "tapeline.restrictedPod" (dict "user" 10001) | nindent 4 }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tapeline.chosen" $ | nindent 10 }}
    {{- end }}
  {{- with .apart }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: { app.kubernetes.io/name: tapeline, app.kubernetes.io/instance: {{ $root.Release.Name }} }
              matchExpressions: [{ key: app.kubernetes.io/component, operator: In, values: {{ toJson . }} }]
  {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tapeline.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: {{ toJson .command }}
      securityContext: {{ include "tapeline.restricted" . }}
      env:
        {{- $env := merge (.env | default dict) (dict "MDQ_PARTITIONS" .root.Values.partitions "MDQ_QUEUE_TYPE" (include "tapeline.queueType" .root) "LOG_LEVEL" .root.Values.logLevel) }}
        {{- range $name, $value := mergeOverwrite $env .root.Values.extraEnv (.values.extraEnv | default dict) }}
        - { name: {{ $name }}, value: {{ $value | toString | quote }} }
        {{- end }}
        {{- range $variable, $file := $secrets }}
        - { name: {{ $variable }}_FILE, value: /run/secrets/tapeline/{{ $file }} }
        {{- end }}
        {{- range $variable, $_ := .values.extraSecrets }}
        - { name: {{ $variable }}_FILE, value: /run/secrets/tapeline/{{ $variable }} }
        {{- end }}
      ports:
        - { name: admin, containerPort: {{ .admin }} }
        {{- range $name, $number := .ports }}
        - { name: {{ $name }}, containerPort: {{ $number }} }
        {{- end }}
      startupProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 1, failureThreshold: 120 }
      livenessProbe: { httpGet: { path: /livez, port: admin }, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3 }
      readinessProbe: { httpGet: { path: /readyz, port: admin }, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 2 }
      {{- with .preStop }}
      # Endpoints and Ingress forget the pod first; then SIGTERM sends its clients off.
      lifecycle: { preStop: { exec: { command: [python, -IS, -c, "import time; time.sleep({{ . }})"] } } }
      {{- end }}
      resources: {{ toJson .values.resources }}
      volumeMounts:
        - { name: secrets, mountPath: /run/secrets/tapeline, readOnly: true }
        - { name: run, mountPath: /var/lib/tapeline }
        - { name: tmp, mountPath: /tmp }
        {{- range $number, $mount := .values.extraMounts }}
        - { name: extra-{{ $number }}, mountPath: {{ $mount.path }}, readOnly: true }
        {{- end }}
  volumes:
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range $file := values $secrets | uniq | sortAlpha }}
          {{- $from := get $sources $file }}
          - secret: { name: {{ $from.name }}, items: [{ key: {{ $from.key }}, path: {{ $file }} }] }
          {{- end }}
          {{- range $variable, $from := .values.extraSecrets }}
          - secret: { name: {{ $from.name }}, items: [{ key: {{ $from.key }}, path: {{ $variable }} }] }
          {{- end }}
    {{- if not .storage }}
    - { name: run, emptyDir: { sizeLimit: 256Mi } }
    {{- end }}
    - { name: tmp, emptyDir: { sizeLimit: 64Mi } }
    {{- range $number, $mount := .values.extraMounts }}
    {{- if eq (empty $mount.secret) (empty $mount.configMap) }}{{ fail (printf "%s.extraMounts: %s: name one of secret and configMap" $.component $mount.path) }}{{ end }}
    - name: extra-{{ $number }}
      {{- if $mount.secret }}
      secret: { secretName: {{ $mount.secret }}, defaultMode: 0440 }
      {{- else }}
      configMap: { name: {{ $mount.configMap }} }
      {{- end }}
    {{- end }}
{{- end }}

{{/* The claim of a StatefulSet: name, storage. */}}
{{- define "tapeline.claim" -}}
- metadata: { name: {{ .name }} }
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storage.className }}
    storageClassName: {{ . }}
    {{- end }}
    resources: { requests: { storage: {{ .storage.size }} } }
{{- end }}

{{- define "tapeline.meta" -}}
name: {{ include "tapeline.name" .root }}-{{ .component }}
labels:
  {{- include "tapeline.labels" . | nindent 2 }}
{{- end }}
