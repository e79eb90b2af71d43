{{/* The names of the objects begin with the release's. */}}
{{- define "evergrant.name" -}}
{{- if contains "evergrant" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-evergrant" (.Release.Name | trunc 40 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "evergrant.selector" -}}
app.kubernetes.io/name: evergrant
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "evergrant.labels" -}}
{{ include "evergrant.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "evergrant.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "evergrant.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "evergrant.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* The settings that are no secret, as a map. Helm reads numbers as floats: a large one must not become 1e+08. */}}
{{- define "evergrant.settings" -}}
EVERGRANT_PUBLIC_URL: {{ required "publicUrl: set it to the https origin at which browsers reach evergrant" .Values.publicUrl | quote }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ ternary (int64 $value) $value (kindIs "float64" $value) | toString | quote }}
{{- end }}
{{- end }}

{{/* Where each secret setting is: a file of its own, which only evergrant's group may read. */}}
{{- define "evergrant.secretEnv" -}}
{{- range $name, $from := .Values.secrets }}
- name: {{ $name }}_FILE
  value: /run/secrets/evergrant/{{ $name }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "evergrant.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $from := .Values.secrets }}
      - secret:
          name: {{ $from.name }}
          items:
            - key: {{ $from.key }}
              path: {{ $name }}
      {{- end }}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "evergrant.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
- name: secrets
  mountPath: /run/secrets/evergrant
  readOnly: true
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "evergrant.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "evergrant.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop:
    - ALL
{{- end }}

{{- define "evergrant.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
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
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* A process that is asked at /healthz whether it lives and at /readyz whether it may get work. */}}
{{- define "evergrant.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{/*
The server and the refresher: a StatefulSet, because each replica needs a volume that outlives it (docs/journal.md).
Takes root, component, values, port, grace (seconds) and args.
*/}}
{{- define "evergrant.workload" -}}
{{- $name := printf "%s-%s" (include "evergrant.name" .root) .component -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "evergrant.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  # Headless: a name for each replica, and a target of its own for Prometheus.
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "evergrant.selector" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  ports:
    - name: metrics
      port: {{ .port }}
      targetPort: http
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "evergrant.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  serviceName: {{ $name }}
  {{- if not (dig "autoscaling" "enabled" false .values) }}
  replicas: {{ .values.replicas }}
  {{- end }}
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      {{- include "evergrant.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  # A replica that comes back finds its journal again; delete the volumes of one that never does by hand.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .root.Values.journal.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .root.Values.journal.size }}
  template:
    metadata:
      labels:
        {{- include "evergrant.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
      annotations:
        # Other settings are other pods: evergrant reads them once, when it starts.
        checksum/settings: {{ include "evergrant.settings" .root | sha256sum }}
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "evergrant.serviceAccount" .root }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .grace }}
      securityContext:
        {{- include "evergrant.podSecurity" . | nindent 8 }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "evergrant.selector" .root | nindent 14 }}
              app.kubernetes.io/component: {{ .component }}
      {{- include "evergrant.placement" .root | nindent 6 }}
      containers:
        - name: evergrant
          image: {{ include "evergrant.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{ toJson .args }}
          envFrom:
            - configMapRef:
                name: {{ include "evergrant.name" .root }}
          env:
            {{- include "evergrant.secretEnv" .root | trim | nindent 12 }}
          ports:
            - name: http
              containerPort: {{ .port }}
          {{- include "evergrant.probes" .port | nindent 10 }}
          lifecycle:
            preStop:
              exec:
                # Until every node has heard that no new requests come here; the image has no shell to sleep with.
                command: [python, -c, "import time; time.sleep(5)"]
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "evergrant.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: /var/lib/evergrant
            {{- include "evergrant.volumeMounts" .root | nindent 12 }}
      volumes:
        {{- include "evergrant.volumes" .root | nindent 8 }}
{{- end }}
