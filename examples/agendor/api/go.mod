module agendor/api

go 1.24
