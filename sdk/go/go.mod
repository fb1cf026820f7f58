module pcluster

go 1.24
