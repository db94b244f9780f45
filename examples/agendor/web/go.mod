module agendor/web

go 1.24
