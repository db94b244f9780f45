module castle/backend

go 1.24
