module probe

go 1.24

require pcluster v0.0.0

replace pcluster => ../../../../sdk/go
