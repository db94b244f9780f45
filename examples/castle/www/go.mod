module castle/www

go 1.24
