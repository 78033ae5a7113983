package expr

import "slices"

// Quantity is what units measure that convert into one another.
type Quantity struct {
	// Name says what is measured; Base is the name of the unit that the others are counted in.
	Name, Base string
	// Units are in the order of the documentation.
	Units []Unit
}

// Unit is a unit of the function convert.
type Unit struct {
	// Name is how an expression writes it.
	Name string
	// Factor is how many of the base unit it is, and Offset how many of the base unit its zero point lies above that of the
	// base unit ("" for nothing). Both are exact: products and quotients of decimal numbers, and of pi.
	Factor, Offset string
}

// Quantities lists the units of convert. The slice is the caller's.
//
// The factors are the definitions: of the SI brochure (9th edition) and, for the inch, the pound and what is made of
// them, of the international yard and pound agreement of 1959. gal, qt, pt, floz and ton are those of the United States;
// cal and Btu are those of the International Table; mmHg and mmH2O are the conventional ones of ISO 80000-4.
func Quantities() []Quantity {
	return slices.Concat(
		sizeQuantities(), bulkQuantities(), flowQuantities(), motionQuantities(), forceQuantities(), electricalQuantities(), materialQuantities(),
	)
}

func sizeQuantities() []Quantity {
	return []Quantity{
		{Name: "temperature", Base: "K", Units: []Unit{
			{Name: "K", Factor: "1"},
			{Name: "degC", Factor: "1", Offset: "273.15"},
			{Name: "degF", Factor: "5/9", Offset: "459.67*5/9"},
			{Name: "degR", Factor: "5/9"},
		}},
		{Name: "pressure", Base: "Pa", Units: []Unit{
			{Name: "Pa", Factor: "1"},
			{Name: "hPa", Factor: "100"},
			{Name: "kPa", Factor: "1000"},
			{Name: "MPa", Factor: "1000000"},
			{Name: "ubar", Factor: "0.1"},
			{Name: "mbar", Factor: "100"},
			{Name: "bar", Factor: "100000"},
			{Name: "atm", Factor: "101325"},
			{Name: "at", Factor: "98066.5"},
			{Name: "Torr", Factor: "101325/760"},
			{Name: "mmHg", Factor: "133.322387415"},
			{Name: "inHg", Factor: "133.322387415*25.4"},
			{Name: "mmH2O", Factor: "9.80665"},
			{Name: "mH2O", Factor: "9806.65"},
			{Name: "inH2O", Factor: "9.80665*25.4"},
			{Name: "psi", Factor: "0.45359237*9.80665/0.0254/0.0254"},
			{Name: "ksi", Factor: "453.59237*9.80665/0.0254/0.0254"},
		}},
		{Name: "length", Base: "m", Units: []Unit{
			{Name: "nm", Factor: "0.000000001"},
			{Name: "um", Factor: "0.000001"},
			{Name: "mm", Factor: "0.001"},
			{Name: "cm", Factor: "0.01"},
			{Name: "dm", Factor: "0.1"},
			{Name: "m", Factor: "1"},
			{Name: "km", Factor: "1000"},
			{Name: "mil", Factor: "0.0000254"},
			{Name: "in", Factor: "0.0254"},
			{Name: "ft", Factor: "0.3048"},
			{Name: "yd", Factor: "0.9144"},
			{Name: "mi", Factor: "1609.344"},
			{Name: "nmi", Factor: "1852"},
		}},
		{Name: "area", Base: "m2", Units: []Unit{
			{Name: "mm2", Factor: "0.000001"},
			{Name: "cm2", Factor: "0.0001"},
			{Name: "dm2", Factor: "0.01"},
			{Name: "m2", Factor: "1"},
			{Name: "ha", Factor: "10000"},
			{Name: "km2", Factor: "1000000"},
			{Name: "in2", Factor: "0.0254*0.0254"},
			{Name: "ft2", Factor: "0.3048*0.3048"},
			{Name: "yd2", Factor: "0.9144*0.9144"},
			{Name: "acre", Factor: "4046.8564224"},
		}},
	}
}

func bulkQuantities() []Quantity {
	return []Quantity{
		{Name: "volume", Base: "m3", Units: []Unit{
			{Name: "mm3", Factor: "0.000000001"},
			{Name: "cm3", Factor: "0.000001"},
			{Name: "dm3", Factor: "0.001"},
			{Name: "m3", Factor: "1"},
			{Name: "ul", Factor: "0.000000001"},
			{Name: "ml", Factor: "0.000001"},
			{Name: "cl", Factor: "0.00001"},
			{Name: "dl", Factor: "0.0001"},
			{Name: "l", Factor: "0.001"},
			{Name: "hl", Factor: "0.1"},
			{Name: "in3", Factor: "0.0254*0.0254*0.0254"},
			{Name: "ft3", Factor: "0.3048*0.3048*0.3048"},
			{Name: "yd3", Factor: "0.9144*0.9144*0.9144"},
			{Name: "gal", Factor: "0.003785411784"},
			{Name: "galUK", Factor: "0.00454609"},
			{Name: "qt", Factor: "0.003785411784/4"},
			{Name: "pt", Factor: "0.003785411784/8"},
			{Name: "floz", Factor: "0.003785411784/128"},
			{Name: "bbl", Factor: "0.158987294928"},
		}},
		{Name: "mass", Base: "kg", Units: []Unit{
			{Name: "ug", Factor: "0.000000001"},
			{Name: "mg", Factor: "0.000001"},
			{Name: "g", Factor: "0.001"},
			{Name: "kg", Factor: "1"},
			{Name: "t", Factor: "1000"},
			{Name: "gr", Factor: "0.00006479891"},
			{Name: "oz", Factor: "0.45359237/16"},
			{Name: "lb", Factor: "0.45359237"},
			{Name: "ton", Factor: "907.18474"},
			{Name: "tonUK", Factor: "1016.0469088"},
		}},
	}
}

func flowQuantities() []Quantity {
	return []Quantity{
		{Name: "volume flow", Base: "m3/s", Units: []Unit{
			{Name: "m3/s", Factor: "1"},
			{Name: "m3/min", Factor: "1/60"},
			{Name: "m3/h", Factor: "1/3600"},
			{Name: "m3/d", Factor: "1/86400"},
			{Name: "l/s", Factor: "0.001"},
			{Name: "l/min", Factor: "0.001/60"},
			{Name: "l/h", Factor: "0.001/3600"},
			{Name: "ml/s", Factor: "0.000001"},
			{Name: "ml/min", Factor: "0.000001/60"},
			{Name: "ml/h", Factor: "0.000001/3600"},
			{Name: "gal/min", Factor: "0.003785411784/60"},
			{Name: "gal/h", Factor: "0.003785411784/3600"},
			{Name: "ft3/s", Factor: "0.3048*0.3048*0.3048"},
			{Name: "ft3/min", Factor: "0.3048*0.3048*0.3048/60"},
			{Name: "ft3/h", Factor: "0.3048*0.3048*0.3048/3600"},
			{Name: "bbl/d", Factor: "0.158987294928/86400"},
		}},
		{Name: "mass flow", Base: "kg/s", Units: []Unit{
			{Name: "kg/s", Factor: "1"},
			{Name: "kg/min", Factor: "1/60"},
			{Name: "kg/h", Factor: "1/3600"},
			{Name: "t/h", Factor: "1/3.6"},
			{Name: "t/d", Factor: "1/86.4"},
			{Name: "g/s", Factor: "0.001"},
			{Name: "g/min", Factor: "0.001/60"},
			{Name: "g/h", Factor: "0.001/3600"},
			{Name: "lb/s", Factor: "0.45359237"},
			{Name: "lb/min", Factor: "0.45359237/60"},
			{Name: "lb/h", Factor: "0.45359237/3600"},
		}},
	}
}

func motionQuantities() []Quantity {
	return []Quantity{
		{Name: "speed", Base: "m/s", Units: []Unit{
			{Name: "m/s", Factor: "1"},
			{Name: "m/min", Factor: "1/60"},
			{Name: "m/h", Factor: "1/3600"},
			{Name: "km/h", Factor: "1/3.6"},
			{Name: "cm/s", Factor: "0.01"},
			{Name: "mm/s", Factor: "0.001"},
			{Name: "mm/min", Factor: "0.001/60"},
			{Name: "um/s", Factor: "0.000001"},
			{Name: "in/s", Factor: "0.0254"},
			{Name: "in/min", Factor: "0.0254/60"},
			{Name: "ft/s", Factor: "0.3048"},
			{Name: "ft/min", Factor: "0.3048/60"},
			{Name: "mph", Factor: "1609.344/3600"},
			{Name: "kn", Factor: "1852/3600"},
		}},
		{Name: "acceleration", Base: "m/s2", Units: []Unit{
			{Name: "m/s2", Factor: "1"},
			{Name: "mm/s2", Factor: "0.001"},
			{Name: "gn", Factor: "9.80665"},
			{Name: "ft/s2", Factor: "0.3048"},
			{Name: "Gal", Factor: "0.01"},
		}},
		{Name: "rotation", Base: "rps", Units: []Unit{
			{Name: "rps", Factor: "1"},
			{Name: "rpm", Factor: "1/60"},
			{Name: "rad/s", Factor: "1/2/pi"},
			{Name: "deg/s", Factor: "1/360"},
		}},
		{Name: "angle", Base: "rev", Units: []Unit{
			{Name: "rev", Factor: "1"},
			{Name: "rad", Factor: "1/2/pi"},
			{Name: "mrad", Factor: "0.001/2/pi"},
			{Name: "deg", Factor: "1/360"},
			{Name: "gon", Factor: "1/400"},
			{Name: "arcmin", Factor: "1/360/60"},
			{Name: "arcsec", Factor: "1/360/3600"},
		}},
		{Name: "frequency", Base: "Hz", Units: []Unit{
			{Name: "mHz", Factor: "0.001"},
			{Name: "Hz", Factor: "1"},
			{Name: "kHz", Factor: "1000"},
			{Name: "MHz", Factor: "1000000"},
			{Name: "GHz", Factor: "1000000000"},
			{Name: "1/min", Factor: "1/60"},
			{Name: "1/h", Factor: "1/3600"},
		}},
		{Name: "time", Base: "s", Units: []Unit{
			{Name: "ns", Factor: "0.000000001"},
			{Name: "us", Factor: "0.000001"},
			{Name: "ms", Factor: "0.001"},
			{Name: "s", Factor: "1"},
			{Name: "min", Factor: "60"},
			{Name: "h", Factor: "3600"},
			{Name: "d", Factor: "86400"},
			{Name: "wk", Factor: "604800"},
		}},
	}
}

func forceQuantities() []Quantity {
	return []Quantity{
		{Name: "force", Base: "N", Units: []Unit{
			{Name: "mN", Factor: "0.001"},
			{Name: "N", Factor: "1"},
			{Name: "kN", Factor: "1000"},
			{Name: "MN", Factor: "1000000"},
			{Name: "kgf", Factor: "9.80665"},
			{Name: "lbf", Factor: "0.45359237*9.80665"},
			{Name: "ozf", Factor: "0.45359237*9.80665/16"},
			{Name: "dyn", Factor: "0.00001"},
		}},
		{Name: "torque", Base: "Nm", Units: []Unit{
			{Name: "mNm", Factor: "0.001"},
			{Name: "Ncm", Factor: "0.01"},
			{Name: "Nm", Factor: "1"},
			{Name: "kNm", Factor: "1000"},
			{Name: "kgf.m", Factor: "9.80665"},
			{Name: "kgf.cm", Factor: "0.0980665"},
			{Name: "lbf.ft", Factor: "0.45359237*9.80665*0.3048"},
			{Name: "lbf.in", Factor: "0.45359237*9.80665*0.0254"},
			{Name: "ozf.in", Factor: "0.45359237*9.80665*0.0254/16"},
		}},
		{Name: "energy", Base: "J", Units: []Unit{
			{Name: "J", Factor: "1"},
			{Name: "kJ", Factor: "1000"},
			{Name: "MJ", Factor: "1000000"},
			{Name: "GJ", Factor: "1000000000"},
			{Name: "Wh", Factor: "3600"},
			{Name: "kWh", Factor: "3600000"},
			{Name: "MWh", Factor: "3600000000"},
			{Name: "GWh", Factor: "3600000000000"},
			{Name: "cal", Factor: "4.1868"},
			{Name: "kcal", Factor: "4186.8"},
			{Name: "Btu", Factor: "1055.05585262"},
			{Name: "therm", Factor: "105505585.262"},
		}},
		{Name: "power", Base: "W", Units: []Unit{
			{Name: "mW", Factor: "0.001"},
			{Name: "W", Factor: "1"},
			{Name: "kW", Factor: "1000"},
			{Name: "MW", Factor: "1000000"},
			{Name: "GW", Factor: "1000000000"},
			{Name: "PS", Factor: "75*9.80665"},
			{Name: "hp", Factor: "550*0.3048*0.45359237*9.80665"},
			{Name: "kcal/h", Factor: "4186.8/3600"},
			{Name: "Btu/h", Factor: "1055.05585262/3600"},
			{Name: "TR", Factor: "12000*1055.05585262/3600"},
		}},
	}
}

func electricalQuantities() []Quantity {
	return []Quantity{
		{Name: "apparent power", Base: "VA", Units: []Unit{
			{Name: "VA", Factor: "1"}, {Name: "kVA", Factor: "1000"}, {Name: "MVA", Factor: "1000000"},
		}},
		{Name: "reactive power", Base: "var", Units: []Unit{
			{Name: "var", Factor: "1"}, {Name: "kvar", Factor: "1000"}, {Name: "Mvar", Factor: "1000000"},
		}},
		{Name: "voltage", Base: "V", Units: []Unit{
			{Name: "uV", Factor: "0.000001"},
			{Name: "mV", Factor: "0.001"},
			{Name: "V", Factor: "1"},
			{Name: "kV", Factor: "1000"},
			{Name: "MV", Factor: "1000000"},
		}},
		{Name: "current", Base: "A", Units: []Unit{
			{Name: "nA", Factor: "0.000000001"},
			{Name: "uA", Factor: "0.000001"},
			{Name: "mA", Factor: "0.001"},
			{Name: "A", Factor: "1"},
			{Name: "kA", Factor: "1000"},
		}},
		{Name: "resistance", Base: "Ohm", Units: []Unit{
			{Name: "mOhm", Factor: "0.001"},
			{Name: "Ohm", Factor: "1"},
			{Name: "kOhm", Factor: "1000"},
			{Name: "MOhm", Factor: "1000000"},
			{Name: "GOhm", Factor: "1000000000"},
		}},
		{Name: "charge", Base: "C", Units: []Unit{
			{Name: "mC", Factor: "0.001"},
			{Name: "C", Factor: "1"},
			{Name: "mAh", Factor: "3.6"},
			{Name: "Ah", Factor: "3600"},
			{Name: "kAh", Factor: "3600000"},
		}},
		{Name: "capacitance", Base: "F", Units: []Unit{
			{Name: "pF", Factor: "0.000000000001"},
			{Name: "nF", Factor: "0.000000001"},
			{Name: "uF", Factor: "0.000001"},
			{Name: "mF", Factor: "0.001"},
			{Name: "F", Factor: "1"},
		}},
		{Name: "inductance", Base: "H", Units: []Unit{
			{Name: "uH", Factor: "0.000001"}, {Name: "mH", Factor: "0.001"}, {Name: "H", Factor: "1"},
		}},
		{Name: "magnetic flux density", Base: "T", Units: []Unit{
			{Name: "uT", Factor: "0.000001"},
			{Name: "mT", Factor: "0.001"},
			{Name: "T", Factor: "1"},
			{Name: "G", Factor: "0.0001"},
		}},
		{Name: "conductivity", Base: "S/m", Units: []Unit{
			{Name: "uS/cm", Factor: "0.0001"},
			{Name: "mS/cm", Factor: "0.1"},
			{Name: "S/m", Factor: "1"},
			{Name: "S/cm", Factor: "100"},
		}},
	}
}

func materialQuantities() []Quantity {
	return []Quantity{
		{Name: "density", Base: "kg/m3", Units: []Unit{
			{Name: "kg/m3", Factor: "1"},
			{Name: "g/l", Factor: "1"},
			{Name: "kg/l", Factor: "1000"},
			{Name: "g/cm3", Factor: "1000"},
			{Name: "g/ml", Factor: "1000"},
			{Name: "lb/ft3", Factor: "0.45359237/0.3048/0.3048/0.3048"},
			{Name: "lb/gal", Factor: "0.45359237/0.003785411784"},
		}},
		{Name: "dynamic viscosity", Base: "Pa.s", Units: []Unit{
			{Name: "Pa.s", Factor: "1"},
			{Name: "mPa.s", Factor: "0.001"},
			{Name: "P", Factor: "0.1"},
			{Name: "cP", Factor: "0.001"},
		}},
		{Name: "kinematic viscosity", Base: "m2/s", Units: []Unit{
			{Name: "m2/s", Factor: "1"},
			{Name: "mm2/s", Factor: "0.000001"},
			{Name: "St", Factor: "0.0001"},
			{Name: "cSt", Factor: "0.000001"},
		}},
		{Name: "ratio", Base: "1", Units: []Unit{
			{Name: "1", Factor: "1"},
			{Name: "%", Factor: "0.01"},
			{Name: "permille", Factor: "0.001"},
			{Name: "ppm", Factor: "0.000001"},
			{Name: "ppb", Factor: "0.000000001"},
		}},
		{Name: "data", Base: "B", Units: []Unit{
			{Name: "bit", Factor: "1/8"},
			{Name: "B", Factor: "1"},
			{Name: "kB", Factor: "1000"},
			{Name: "MB", Factor: "1000000"},
			{Name: "GB", Factor: "1000000000"},
			{Name: "KiB", Factor: "1024"},
			{Name: "MiB", Factor: "1048576"},
			{Name: "GiB", Factor: "1073741824"},
		}},
	}
}
