FROM busybox:latest
COPY . /whole/
COPY dir/* /wild/
