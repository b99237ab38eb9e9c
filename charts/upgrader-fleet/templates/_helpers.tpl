{{- define "upgrader-fleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "upgrader-fleet.selector" -}}
app.kubernetes.io/name: upgrader-fleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* A plus sign, as of a build, is none of a label's letters. */ -}}
{{- define "upgrader-fleet.labels" -}}
{{ include "upgrader-fleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: upgrader-fleet
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels with more: (list $ $more). A label that both have is there once, or the API server would refuse the object. */ -}}
{{- define "upgrader-fleet.labelsAnd" -}}
{{ toYaml (merge (deepCopy (last .)) (include "upgrader-fleet.labels" (first .) | fromYaml)) }}
{{- end -}}

{{- define "upgrader-fleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "upgrader-fleet.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end -}}
{{- end -}}

{{- define "upgrader-fleet.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag | replace "+" "_" }}{{ end -}}
{{- end -}}

{{- /* Labels of the pod of `helm test`: not the operator's, or its Service would find this pod. */ -}}
{{- define "upgrader-fleet.testLabels" -}}
app.kubernetes.io/name: upgrader-fleet-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: upgrader-fleet
{{- end -}}
