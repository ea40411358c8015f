{{- define "penstock.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select; a dict of root and part. */ -}}
{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end -}}

{{- define "penstock.image" -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}

{{- /* How many workers there can be: gateways know the address of each. */ -}}
{{- define "penstock.workers" -}}
{{- if .Values.worker.autoscaling.enabled -}}
{{- .Values.worker.autoscaling.maxReplicas -}}
{{- else -}}
{{- .Values.worker.replicas -}}
{{- end -}}
{{- end -}}

{{- define "penstock.workerAddresses" -}}
{{- $name := printf "%s-worker" (include "penstock.name" .) -}}
{{- $addresses := list -}}
{{- range $index := until (int (include "penstock.workers" .)) -}}
{{- $addresses = append $addresses (printf "%s-%d.%s.$(POD_NAMESPACE).svc:8010" $name $index $name) -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Variables that gateways and workers have in common. */ -}}
{{- define "penstock.environment" -}}
- {name: PENSTOCK_CONFIG, value: /etc/penstock/penstock.yaml}
- name: PENSTOCK_WORKER_TOKEN
  valueFrom: {secretKeyRef: {{ toJson .Values.secrets.workerToken }}}
- {name: PENSTOCK_WORKER_CERT, value: /etc/penstock/tls/tls.crt}
- {name: PENSTOCK_WORKER_KEY, value: /etc/penstock/tls/tls.key}
- {name: PENSTOCK_WORKER_CA, value: /etc/penstock/tls/ca.crt}
{{- if .Values.redis.enabled }}
- name: PENSTOCK_REDIS
  valueFrom: {secretKeyRef: {{ toJson .Values.redis.url }}}
{{- end }}
{{- end -}}

{{- define "penstock.redisMount" -}}
{{- if and .Values.redis.enabled .Values.redis.caSecret }}
- {name: redis, mountPath: /etc/penstock/redis, readOnly: true}
{{- end }}
{{- end -}}

{{- define "penstock.redisVolume" -}}
{{- if and .Values.redis.enabled .Values.redis.caSecret }}
- name: redis
  secret: {secretName: {{ .Values.redis.caSecret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "penstock.mounts" -}}
- {name: settings, mountPath: /etc/penstock/penstock.yaml, subPath: penstock.yaml, readOnly: true}
- {name: tls, mountPath: /etc/penstock/tls, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.model.volume }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- include "penstock.redisMount" . }}
{{- end -}}

{{- /* A dict of root and secret, the name of the part's own. */ -}}
{{- define "penstock.volumes" -}}
- name: settings
  configMap: {name: {{ include "penstock.name" .root }}}
- name: tls
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- with .root.Values.model.volume }}
- name: models
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "penstock.redisVolume" .root }}
{{- end -}}

{{- /* One pod per node, as far as there are nodes. */ -}}
{{- define "penstock.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "penstock.selector" . | nindent 6 }}
{{- end -}}

{{- define "penstock.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
