module triggers

go 1.24
