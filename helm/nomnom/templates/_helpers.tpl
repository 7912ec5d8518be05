{{/* The prefix of every resource: the release's name. */}}
{{- define "nomnom.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "nomnom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Selector labels of a component. Takes (list $ "component"). */}}
{{- define "nomnom.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "nomnom.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component's resources. Takes (list $ "component"). */}}
{{- define "nomnom.labels" -}}
{{- $ := index . 0 -}}
{{ include "nomnom.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: nomnom
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.global.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, namespace and labels of a resource. Takes (list $ "component") or (list $ "component" "name suffix"). */}}
{{- define "nomnom.metadata" -}}
{{- $ := index . 0 -}}
{{- $suffix := index . 1 -}}
{{- if gt (len .) 2 }}{{ $suffix = index . 2 }}{{ end -}}
name: {{ include "nomnom.fullname" $ }}-{{ $suffix }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "nomnom.labels" (list $ (index . 1)) | nindent 2 }}
{{- end -}}

{{/* Full name of an image. Takes (list $ image). */}}
{{- define "nomnom.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := default $.Chart.AppVersion $image.tag -}}
{{- $name := printf "%s%s%s" $image.repository (ternary "@" ":" (hasPrefix "sha256:" $tag)) $tag -}}
{{- with $.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}{{ $name -}}
{{- end -}}

{{- define "nomnom.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "nomnom.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* Fields common to all pods. Takes (list $ user group). */}}
{{- define "nomnom.pod" -}}
{{- $ := index . 0 -}}
serviceAccountName: {{ include "nomnom.serviceAccountName" $ }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 1 | int64 }}
  runAsGroup: {{ index . 2 | int64 }}
  fsGroup: {{ index . 2 | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "nomnom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Scheduling constraints of a component's pods. Takes (list $ "component" values). */}}
{{- define "nomnom.placement" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.spread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ $values.spread }}
    labelSelector:
      matchLabels:
        {{- include "nomnom.selector" (list $ $component) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end -}}

{{/* HorizontalPodAutoscaler on CPU utilization. Takes (list $ "component" autoscaling). */}}
{{- define "nomnom.autoscaler" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $scaling := index . 2 -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}{{ fail (printf "%s: autoscaling.minReplicas (%d) must not exceed autoscaling.maxReplicas (%d)" $component (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}{{ end -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "nomnom.metadata" (list $ $component) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "nomnom.fullname" $ }}-{{ $component }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $scaling.targetCPUUtilizationPercentage }}
{{- end -}}

{{/* PodDisruptionBudget. Takes (list $ "component" "maxUnavailable" or "minAvailable" number). */}}
{{- define "nomnom.budget" -}}
{{- $ := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "nomnom.metadata" (list $ (index . 1)) | nindent 2 }}
spec:
  {{ index . 2 }}: {{ index . 3 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "nomnom.selector" (list $ (index . 1)) | nindent 6 }}
{{- end -}}

{{- define "nomnom.natsSecret" -}}
{{- default (printf "%s-nats-auth" (include "nomnom.fullname" .)) .Values.nats.auth.existingSecret -}}
{{- end -}}

{{- define "nomnom.databaseSecret" -}}
{{- default (printf "%s-database" (include "nomnom.fullname" .)) .Values.database.existingSecret -}}
{{- end -}}

{{- define "nomnom.schemaConfigMap" -}}
{{- default (printf "%s-schema" (include "nomnom.fullname" .)) .Values.schema.existingConfigMap -}}
{{- end -}}

{{- define "nomnom.schemaText" -}}
{{- if .Values.schema.content -}}
{{ .Values.schema.content }}
{{- else -}}
{{- $text := .Files.Get (printf "files/schemas/%s.yaml" .Values.schema.name) -}}
{{- if not $text }}{{ fail (printf "schema.name: the chart does not include a schema %q, only tpch and ecommerce; set schema.content or schema.existingConfigMap" .Values.schema.name) }}{{ end -}}
{{ $text }}
{{- end -}}
{{- end -}}

{{- define "nomnom.databaseHost" -}}
{{- if .Values.postgresql.enabled -}}
{{ include "nomnom.fullname" . }}-postgres.{{ .Release.Namespace }}.svc
{{- else -}}
{{ required "database.host: name the PostgreSQL server, or set postgresql.enabled" .Values.database.host }}
{{- end -}}
{{- end -}}

{{/* PostgreSQL role of a component. Takes (list $ "component"). */}}
{{- define "nomnom.role" -}}
{{- $roles := (index . 0).Values.database.roles -}}
{{- ternary (index $roles (index . 1)) $roles.owner (and $roles.separate (ne (index . 1) "owner")) -}}
{{- end -}}

{{/* Key of a component's password in the database Secret. Takes (list $ "component"). */}}
{{- define "nomnom.roleKey" -}}
{{- ternary (index . 1) "owner" (index . 0).Values.database.roles.separate -}}-password
{{- end -}}

{{/* Two environment variables: a role's password, and the URL that contains it. Takes (list $ "component" "NAME_OF_URL"). */}}
{{- define "nomnom.databaseEnv" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $password := printf "%s_PASSWORD" (index . 2 | trimSuffix "_URL") -}}
- name: {{ $password }}
  valueFrom:
    secretKeyRef:
      name: {{ include "nomnom.databaseSecret" $ }}
      key: {{ include "nomnom.roleKey" (list $ $component) }}
- name: {{ index . 2 }}
  value: postgresql://{{ include "nomnom.role" (list $ $component) }}:$({{ $password }})@{{ include "nomnom.databaseHost" $ }}:{{ ternary 5432 (int $.Values.database.port) $.Values.postgresql.enabled }}/{{ $.Values.database.name }}{{ include "nomnom.databaseTls" $ }}
{{- end -}}

{{- define "nomnom.databaseTls" -}}
{{- $mode := .Values.database.sslMode -}}
{{- if $mode }}?sslmode={{ $mode }}{{ end -}}
{{- if hasPrefix "verify" $mode -}}
{{- if not .Values.database.caSecret }}{{ fail (printf "database.caSecret: sslMode %s requires the Secret with the CA certificate, ca.crt" $mode) }}{{ end -}}
&sslrootcert=/etc/nomnom-database/ca.crt
{{- end -}}
{{- end -}}

{{/* Environment variables common to all components. Takes (list $ "NATS user" "database component"). */}}
{{- define "nomnom.env" -}}
{{- $ := index . 0 -}}
{{- $user := index . 1 -}}
- name: NATS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "nomnom.natsSecret" $ }}
      key: {{ $user }}-password
- name: NATS_URL
  value: {{ include "nomnom.natsUrl" (list $ $user) }}
- name: NATS_INBOX_PREFIX
  value: _INBOX_{{ $user }}
- name: NATS_STREAM
  value: {{ $.Values.nats.stream | quote }}
- name: NATS_CONSUMER
  value: {{ $.Values.nats.consumer | quote }}
{{ include "nomnom.databaseEnv" (list $ (index . 2) "DATABASE_URL") }}
- name: NOMNOM_SCHEMA
  value: /etc/nomnom/schema.yaml
- name: LOG_LEVEL
  value: {{ $.Values.logLevel }}
- name: LOG_FORMAT
  value: json
{{- end -}}

{{- define "nomnom.natsUrl" -}}
{{- $ := index . 0 -}}
{{- $user := index . 1 -}}
{{- if $.Values.nats.enabled -}}
nats://{{ $user }}:$(NATS_PASSWORD)@{{ include "nomnom.fullname" $ }}-nats.{{ $.Release.Namespace }}.svc:4222
{{- else -}}
{{- $urls := list -}}
{{- range $.Values.nats.external.servers }}{{ $urls = append $urls (printf "nats://%s:$(NATS_PASSWORD)@%s" $user .) }}{{ end -}}
{{- required "nats.external.servers: name the servers, or set nats.enabled" (join "," $urls) -}}
{{- end -}}
{{- end -}}

{{/* The monitoring ports of the servers, separated by commas. */}}
{{- define "nomnom.natsMonitorUrls" -}}
{{- $urls := list -}}
{{- range $at := until (int .Values.nats.replicas) -}}
{{- $urls = append $urls (printf "http://%s-nats-%d.%s-nats-headless.%s.svc:8222" (include "nomnom.fullname" $) $at (include "nomnom.fullname" $) $.Release.Namespace) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

{{/* Volumes of the schema and the database's CA certificate. */}}
{{- define "nomnom.schemaVolume" -}}
- name: schema
  configMap:
    name: {{ include "nomnom.schemaConfigMap" . }}
{{- with .Values.database.caSecret }}
- name: database-ca
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end -}}

{{- define "nomnom.schemaMount" -}}
- name: schema
  mountPath: /etc/nomnom
  readOnly: true
{{- if .Values.database.caSecret }}
- name: database-ca
  mountPath: /etc/nomnom-database
  readOnly: true
{{- end }}
{{- end -}}

{{/* Annotation that restarts pods when the schema changes. */}}
{{- define "nomnom.schemaChecksum" -}}
checksum/schema: {{ ternary .Values.schema.existingConfigMap (include "nomnom.schemaText" . | sha256sum) (not (empty .Values.schema.existingConfigMap)) }}
{{- end -}}

{{/* The password generated earlier, or a new one. Takes (list secret "key"). */}}
{{- define "nomnom.password" -}}
{{- $kept := index (default dict (index . 0)) (index . 1) -}}
{{- /* nats-server reads a value that begins with a digit as a number. */ -}}
{{- default (printf "n%s" (randAlphaNum 31) | b64enc) $kept -}}
{{- end -}}

{{- /* The users of NATS, each with a password of its own. */}}
{{- define "nomnom.natsUsers" -}}
api worker dashboard housekeeper setup operator system
{{- end -}}

{{- /* The login roles of PostgreSQL that setup creates. */}}
{{- define "nomnom.databaseRoles" -}}
worker api dashboard operator housekeeper
{{- end -}}
