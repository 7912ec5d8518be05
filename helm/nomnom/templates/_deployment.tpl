{{- /* Deployment of a stateless component.
Takes (dict "root" $ "component" "…" "values" … "replicas" number or nil "user" 10001 "grace" seconds "container" text "volumes" text). */}}
{{- define "nomnom.deployment" -}}
{{- $ := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "nomnom.metadata" (list $ .component) | nindent 2 }}
spec:
  {{- if not (kindIs "invalid" .replicas) }}
  replicas: {{ .replicas }}
  {{- end }}
  revisionHistoryLimit: 10
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "nomnom.selector" (list $ .component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "nomnom.labels" (list $ .component) | nindent 8 }}
      annotations:
        {{- include "nomnom.schemaChecksum" $ | nindent 8 }}
        {{- with .annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "nomnom.pod" (list $ .user .user) | nindent 6 }}
      terminationGracePeriodSeconds: {{ .grace }}
      containers:
        - name: {{ .component }}
          image: {{ include "nomnom.image" (list $ .values.image) }}
          imagePullPolicy: {{ .values.image.pullPolicy }}
          {{- .container | nindent 10 }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "nomnom.containerSecurity" $ | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- include "nomnom.placement" (list $ .component .values) | nindent 6 }}
{{- end -}}

{{- /* Probes of nomnom's services. Takes the name of the port. */}}
{{- define "nomnom.probes" -}}
startupProbe:
  httpGet: {path: /health, port: {{ . }}}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /health, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /ready, port: {{ . }}}
  periodSeconds: 3
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
