// Package wide offers too much.
package wide

// The names.
var (
	Name1  = 1
	Name2  = 2
	Name3  = 3
	Name4  = 4
	Name5  = 5
	Name6  = 6
	Name7  = 7
	Name8  = 8
	Name9  = 9
	Name10 = 10
	Name11 = 11
	Name12 = 12
	Name13 = 13
	Name14 = 14
	Name15 = 15
	Name16 = 16
	Name17 = 17
	Name18 = 18
	Name19 = 19
	Name20 = 20
	Name21 = 21
	Name22 = 22
	Name23 = 23
	Name24 = 24
	Name25 = 25
	Name26 = 26
	Name27 = 27
	Name28 = 28
	Name29 = 29
	Name30 = 30
	Name31 = 31
	Name32 = 32
	Name33 = 33
	Name34 = 34
	Name35 = 35
	Name36 = 36
	Name37 = 37
	Name38 = 38
	Name39 = 39
	Name40 = 40
	Name41 = 41
	Name42 = 42
	Name43 = 43
	Name44 = 44
	Name45 = 45
	Name46 = 46
	Name47 = 47
	Name48 = 48
	Name49 = 49
	Name50 = 50
	Name51 = 51
	Name52 = 52
	Name53 = 53
	Name54 = 54
	Name55 = 55
	Name56 = 56
	Name57 = 57
	Name58 = 58
	Name59 = 59
	Name60 = 60
	Name61 = 61 // want "surface"
)

// Constant is not counted.
const Constant = 1
